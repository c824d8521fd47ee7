"""Wrong kinds and sizes of encoders are found before weights are read."""

import json

import builders
import keras_hub
import pytest
import transformers
from builders import LONG_ELSEWHERE

from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

SIZES = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Presets of KerasHub without their weights, and transformers' folders."""
    root = tmp_path_factory.mktemp("encoders")
    for name in ("clip", "vit", "bert"):
        folder = root / f"hub_{name}"
        getattr(builders, name)().save_to_preset(folder)
        (folder / "model.weights.h5").unlink()
    vit = transformers.ViTConfig(**SIZES, image_size=32, patch_size=8)
    transformers.ViTModel(vit).save_pretrained(root / "vit")
    bert = transformers.BertConfig(**SIZES, vocab_size=50)
    transformers.BertModel(bert).save_pretrained(root / "bert")
    (root / "unknown").mkdir()
    unknown = json.dumps({"model_type": "gpt2"})
    (root / "unknown" / "config.json").write_text(unknown)
    return root


@pytest.mark.parametrize(
    "name, read, error, message",
    [
        ("hub_bert", "image", ConversionError, "image encoders.*BertBackbone"),
        ("hub_vit", "text", ConversionError, "text encoders.*ViTBackbone"),
        ("hub_clip", "text", ConversionError, "CLIPVisionEncoder"),
        ("hub_vit", 60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("hub_clip", 60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("vit", 60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("bert", "image", ConversionError, "of type .*vit.*model_type='bert'"),
        ("vit", "text", ConversionError, "of type .*bert.*model_type='vit'"),
        ("unknown", "image", ConversionError, "of type .*model_type='gpt2'"),
        ("unknown", "text", ConversionError, "of type .*model_type='gpt2'"),
    ],
)
def test_one_error_before_the_weights(
    name, read, error, message, folders, monkeypatch
):
    def refuse(*args):
        raise AssertionError("weights are read")

    monkeypatch.setattr(unimodal, "load_weights", refuse)
    source = folders / name
    with pytest.raises(error, match=message):
        if read == "text":
            unimodal.text_encoder(source)
        elif read == "image":
            unimodal.image_encoder(source)
        else:
            unimodal.image_encoder(source, image_size=read)


def test_two_encoders_in_the_wrong_order(folders):
    """The kind comes before pixels and tokens that are missing too."""
    for part, found in zip(unimodal.PARTS, ("vit", "bert"), strict=True):
        with pytest.raises(ConversionError, match=f"model_type='{found}'"):
            unimodal.open_encoders(
                folders / "bert", folders / "vit", parts=(part,)
            )


def test_classes_without_a_rule(tmp_path):
    made = keras_hub.models.GPT2Backbone(
        20, 1, 2, 16, 32, max_sequence_length=8
    )
    made.save_to_preset(tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").unlink()
    with pytest.raises(TypeError, match="GPT2Backbone"):
        unimodal.text_encoder(tmp_path / "preset")
