"""The pixels of encoders' entries against published image processors."""

import json

import keras_hub.models as hub
import pytest
from builders import ONE_BACKEND

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.encoders.registry import entries

pytestmark = ONE_BACKEND

OF_IMAGENET = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
OF_CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": 224,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# The settings of openai/clip-vit-base-patch16, google/vit-base-patch16-224,
# facebook/deit-base-distilled-patch16-224, dinov2-base and dinov3-vitb16.
PUBLISHED = {
    hub.CLIPVisionEncoder: OF_CLIP,
    # transformers' processor of MetaCLIP 2 is CLIP's.
    hub.MetaCLIP2VisionEncoder: OF_CLIP,
    hub.SigLIPVisionEncoder: {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    hub.ViTBackbone: {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    hub.DeiTBackbone: {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        **OF_IMAGENET,
    },
    hub.DINOV2Backbone: {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        **OF_IMAGENET,
    },
    hub.DINOV3Backbone: {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": 224, "width": 224},
        "resample": 2,
        **OF_IMAGENET,
    },
}


@pytest.mark.parametrize("cls", PUBLISHED, ids=lambda cls: cls.__name__)
def test_an_entry_has_the_pixels_of_its_published_weights(cls, tmp_path):
    text = json.dumps(PUBLISHED[cls])
    (tmp_path / "preprocessor_config.json").write_text(text)
    expected = unimodal.image_converter(tmp_path).get_config()
    pixels = entries("image")[cls].pixels
    made = kbt.BridgeTowerImageConverter(224, **pixels).get_config()
    assert {**made, "name": ""} == {**expected, "name": ""}


def test_every_entry_has_pixels():
    # Those that tests register have no name.
    assert all(e.pixels for e in entries("image").values() if e.name)
