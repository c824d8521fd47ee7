"""Converters of pictures, against the image processors of transformers."""

import json

import keras
import keras_hub.models as hub
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from builders import ANSWERS
from builders import LONG_ELSEWHERE
from builders import shallow
from builders import tokenizer
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.convert.unimodal import image_converter
from keras_bridgetower.encoders.registry import entries
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.geometry import check_transform
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

OWN = {"image_mean": [0.4, 0.5, 0.7], "image_std": [0.2, 0.3, 0.25]}
RAW = {"image_mean": [123, 116, 103], "image_std": [58, 57, 60]}
HALF = {"rescale_factor": 1 / 127.5}
SIDE = {"height": 40, "width": 40}
LARGER = {"height": 47, "width": 47}
SHORT = {"shortest_edge": 64}


def edge(side, **values):
    return {"size": {"shortest_edge": side}, **values}


# Classes and values.
PROCESSORS = {
    "clip": ("CLIP", edge(51, crop_size=SIDE, resample=1, **OWN)),
    "dinov2": ("Bit", edge(47, crop_size=SIDE, **OWN)),
    "siglip": ("Siglip", {"size": SIDE, "resample": 2, **OWN}),
    "siglip with a crop": (
        "Siglip",
        {"size": LARGER, "crop_size": SIDE, "do_center_crop": True},
    ),
    "vit": ("ViT", {"size": SIDE, "resample": 5, **OWN}),
    "vit of raw values": ("ViT", {"size": SIDE, "do_rescale": False, **RAW}),
    "deit": ("DeiT", {"size": LARGER, "crop_size": SIDE, **OWN}),
    "efficientnet": (
        "EfficientNet",
        {"size": SIDE, "resample": 0, "rescale_offset": True, **HALF, **OWN},
    ),
    "efficientnet without top": (
        "EfficientNet",
        {"size": LARGER, "include_top": False, **HALF},
    ),
    "convnext": ("ConvNext", edge(40, **OWN)),
    "resnet": ("ConvNext", edge(41, crop_pct=0.9)),
    "bridgetower": ("BridgeTower", edge(64, crop_size=SHORT, **OWN)),
    "bridgetower of raw values": (
        "BridgeTower",
        edge(64, crop_size=SHORT, do_normalize=False),
    ),
    "convnext of whole pictures": ("ConvNext", edge(384, resample=2)),
}


def pictures():
    """Landscape, portrait, tiny, gray and partly transparent ones."""
    rng = np.random.default_rng(0)
    shapes = [(97, 151, 3), (140, 61, 3), (5, 7, 3), (63, 50), (45, 52, 4)]
    return [
        Image.fromarray(rng.integers(0, 256, shape, "uint8"))
        for shape in shapes
    ]


def theirs_of(name, folder, **values):
    """Save a processor, and return the one that Pillow runs in."""
    cls = getattr(transformers, f"{name}ImageProcessorPil")
    cls(**values).save_pretrained(folder)
    return cls.from_pretrained(folder)


def converter_of(values, folder):
    """The converter of a file with these values."""
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return image_converter(folder)


def assert_same_pixels(converter, theirs):
    for picture in pictures():
        seen = picture
        if not theirs.do_convert_rgb and picture.mode != "RGB":
            # They would keep the channels.
            seen = Image.fromarray(kbt.preprocessing.images.load_image(picture))
        (expected,) = theirs(seen)["pixel_values"]
        found = converter(picture)
        np.testing.assert_allclose(
            found, np.moveaxis(expected, 0, -1), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("case", PROCESSORS)
def test_pixels_are_those_of_the_image_processor(case, tmp_path):
    name, values = PROCESSORS[case]
    theirs = theirs_of(name, tmp_path, **values)
    converter = image_converter(tmp_path)
    assert_same_pixels(converter, theirs)
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(converter)))
    )
    assert again.square == converter.square
    picture = np.array(pictures()[0])
    expected = converter(picture)
    np.testing.assert_array_equal(again(picture), expected)
    dataset = tf.data.Dataset.from_tensors(picture).map(again)
    np.testing.assert_array_equal(*dataset.as_numpy_iterator(), expected)


@pytest.mark.parametrize(
    "name, values, asked, theirs",
    [
        ("CLIP", {"size": 256, "crop_size": 224}, 42, {"size": 48}),
        ("DeiT", {"size": 40, "crop_size": 30}, 45, {"size": 60}),
        ("ViT", {"size": 40}, 24, {"size": 24}),
        ("ConvNext", {"size": 400}, 42, {"size": 42}),
        ("ConvNext", {"size": 30}, 385, {"size": 385}),
    ],
)
def test_another_side_keeps_the_ratio_of_the_crop(
    name, values, asked, theirs, tmp_path
):
    theirs_of(name, tmp_path, **values)
    converter = image_converter(tmp_path, image_size=asked)
    theirs = {"crop_size": asked, **theirs}
    assert_same_pixels(converter, theirs_of(name, tmp_path, **theirs))


NAMED = "image_processor_type"
ONE_MEAN = {"image_mean": 0.4, "do_center_crop": True}


@pytest.mark.parametrize(
    "cls, written",
    [
        ("CLIP", {"feature_extractor_type": "CLIPFeatureExtractor"}),
        ("CLIP", {NAMED: "CLIPImageProcessorFast"}),
        ("DeiT", {NAMED: "DeiTFeatureExtractor"}),
        ("ViT", {NAMED: "ViTImageProcessor", "crop_size": None, "size": 30}),
        ("Siglip", {NAMED: "SiglipImageProcessor"}),
        ("ConvNext", {NAMED: "ConvNextImageProcessor"}),
        ("EfficientNet", {NAMED: "EfficientNetImageProcessor", **ONE_MEAN}),
    ],
)
def test_what_a_file_omits_is_that_of_the_class(cls, written, tmp_path):
    text = json.dumps({"image_processor": written})
    (tmp_path / "processor_config.json").write_text(text)
    theirs = getattr(transformers, f"{cls}ImageProcessorPil")(**written)
    assert_same_pixels(image_converter(tmp_path), theirs)


def test_dinov3_rounds_to_levels_where_theirs_does_not(tmp_path):
    """Theirs needs torchvision, which resizes by this function of PyTorch."""
    config = {"image_processor_type": "DINOv3ViTImageProcessorFast"}
    config |= {"size": SIDE, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    converter = converter_of(config, tmp_path)
    for picture in pictures()[:3]:
        pixels = np.moveaxis(np.array(picture), -1, 0)[None]
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(pixels) / 255,
            (40, 40),
            mode="bilinear",
            antialias=True,
        )
        expected = np.moveaxis(resized[0].numpy(), 0, -1)
        difference = np.abs(converter(picture) - expected)
        assert 0 < difference.max() <= 1 / 255


def of_class(name, **values):
    return {"image_processor_type": f"{name}ImageProcessor", **values}


def of_bridgetower(**values):
    return of_class("BridgeTower", **{"size": 40, "crop_size": 40, **values})


ODD = {"height": 4, "width": 5}
# Values of a file, and what the error names.
REFUSED = [
    (of_class("ViT", do_resize=False, do_pad=True), "do_resize=.*do_pad="),
    (of_class("ViT", size=ODD), "size="),
    (of_class("ViT", size={"shortest_edge": 5}), "size="),
    # The shorter side, so pictures that are not square do not become so.
    (of_class("Siglip", size=32), "size=32"),
    (of_class("ViT", resample=9), "resample=9"),
    (of_class("ViT", image_std=[1, 0, 1]), "std"),
    (of_class("CLIP", do_center_crop=False), "size="),
    (of_class("CLIP", size=20, crop_size=30), "crop_size="),
    (of_class("CLIP", use_square_size=True), "use_square_size="),
    (of_class("ConvNext", do_center_crop=True), "do_center_crop="),
    (of_class("ConvNext", size=30, crop_pct=0), "zero"),
    (of_class("Siglip2"), "image_processor_type='Siglip2Image"),
    (of_class("Mllama", size=9), "image_processor_type='MllamaImage"),
    (of_bridgetower(size={"shortest_edge": 288}), "crop_size="),
    (of_bridgetower(image_mean=[0.5, 0.5]), "broadcast"),
    (of_bridgetower(image_mean=10**400), "too large"),
    (of_bridgetower(do_rescale=False), "do_rescale="),
    (of_bridgetower(resample=2), "resample="),
    (of_bridgetower(size_divisor=0), "size_divisor"),
    (of_bridgetower(rescale_factor=1 / 256), "rescale_factor="),
]


@pytest.mark.parametrize(
    "values, named", REFUSED, ids=lambda value: str(value)[-50:]
)
def test_what_makes_no_squares_is_refused(values, named, tmp_path):
    with pytest.raises(ConversionError, match=f"config.json': .*{named}"):
        converter_of(values, tmp_path)


OF_IMAGENET = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
# The settings of openai/clip-vit-base-patch16, google/vit-base-patch16-224,
# facebook/deit-base-distilled-patch16-224, dinov2-base and dinov3-vitb16,
# without those that are the class's own.
PUBLISHED = {
    hub.CLIPVisionEncoder: of_class("CLIP"),
    # transformers' processor of MetaCLIP 2 is CLIP's.
    hub.MetaCLIP2VisionEncoder: of_class("CLIP"),
    hub.SigLIPVisionEncoder: of_class("Siglip", size=[224, 224]),
    hub.ViTBackbone: of_class("ViT"),
    hub.DeiTBackbone: of_class("DeiT", crop_size=224, **OF_IMAGENET),
    hub.DINOV2Backbone: of_class(
        "Bit", size={"shortest_edge": 256}, crop_size=224, **OF_IMAGENET
    ),
    hub.DINOV3Backbone: of_class("DINOv3ViT", resample=2, **OF_IMAGENET),
}


@pytest.mark.parametrize("cls", PUBLISHED, ids=lambda cls: cls.__name__)
def test_an_entry_has_the_pixels_of_its_published_weights(cls, tmp_path):
    expected = converter_of(PUBLISHED[cls], tmp_path).get_config()
    pixels = entries("image")[cls].pixels
    made = kbt.BridgeTowerImageConverter(224, **pixels).get_config()
    assert {**made, "name": ""} == {**expected, "name": ""}


def test_every_entry_has_pixels():
    # Those that tests register have no name.
    assert all(e.pixels for e in entries("image").values() if e.name)


def test_a_folder_without_the_file(tmp_path):
    named = "preprocessor_config.json.*build a BridgeTowerImageConverter"
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConversionError, match=named):
            image_converter(source)
    with pytest.raises(ValueError, match="`image_size` must be"):
        image_converter(tmp_path, image_size=0)


def test_presets_keep_the_values_and_scale_the_crop(tmp_path):
    converter = kbt.BridgeTowerImageConverter(
        32, "center", crop_pct=0.8, resample="lanczos"
    )
    cls = kbt.BridgeTowerVQAPreprocessor
    preprocessor = cls(tokenizer(), converter, answers=ANSWERS)
    task = kbt.BridgeTowerVQA(shallow(), preprocessor)
    task.save_to_preset(tmp_path / "preset")
    opened = cls.from_preset(tmp_path / "preset").image_converter
    assert opened.square == converter.square
    larger = cls.from_preset(tmp_path / "preset", image_size=64)
    larger = larger.image_converter
    picture = pictures()[0]  # 151 by 97
    expected = picture.resize((124, 80), Image.Resampling.LANCZOS)
    expected = np.asarray(expected.crop((30, 8, 94, 72))) / 255
    found = larger(picture) * larger.std + larger.mean
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_squares_that_would_be_cropped_are_not_made():
    converter = kbt.BridgeTowerImageConverter(40, "center", crop_pct=0.8)
    picture = pictures()[0]
    assert as_square(picture, converter.square) is picture
    with pytest.raises(ValueError, match="crop_pct=1.*crop_pct=0.8"):
        check_transform(kbt.data.transform("clip", 40), converter)
    check_transform(
        kbt.data.transform("clip", 40),
        kbt.BridgeTowerImageConverter(40, "center", resample="box"),
    )


@pytest.mark.parametrize(
    "name, value",
    [("crop_pct", 0), ("crop_pct", True), ("resample", 3), ("mode", "centre")],
)
def test_wrong_values_of_a_converter(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        kbt.BridgeTowerImageConverter(40, **{name: value})
