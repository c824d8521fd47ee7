"""Encoders of transformers and OpenAI: the same states, or one error."""

import json

import builders
import keras_hub
import numpy as np
import pytest
import torch
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from peers_first import bert
from peers_first import clip
from peers_first import vit

from keras_bridgetower.convert import unimodal
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.models.positions import resize_positions
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE


def test_a_file_of_another_model_is_no_clip(tmp_path):
    torch.save({"visual.conv1.weight": torch.ones(8, 3, 4, 4)}, tmp_path / "a")
    with pytest.raises(ConversionError, match="visual.*another model"):
        unimodal.image_encoder(tmp_path / "a")


# Names of OpenAI's CLIP, by those of transformers.
OPENAI = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def test_openai_state_dict(tmp_path):
    model = clip()
    state, source = {}, model.vision_model.state_dict()
    for name, value in source.items():
        if "q_proj" in name:
            parts = [source[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            value = torch.cat(parts)
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
        for theirs, openai in OPENAI.items():
            name = name.replace(theirs, openai)
        if "self_attn" not in name and "position_ids" not in name:
            state[f"visual.{name}"] = value
    state |= {
        "visual.proj": torch.ones(32, 8),
        "logit_scale": torch.ones(()),
        "token_embedding.weight": torch.ones(9, 8),
    }
    torch.save(state, tmp_path / "clip.pt")
    model.save_pretrained(tmp_path / "model")
    a = unimodal.image_encoder(tmp_path / "model")
    b = unimodal.image_encoder(tmp_path / "clip.pt", image_size=48)
    # One head for 64 of width is OpenAI's rule; only weights are compared.
    for ours, other in zip(b.weights, a.weights, strict=True):
        if "position" not in ours.path:
            got, expected = (array(w).ravel() for w in (ours, other))
            assert difference(got, expected) == 0, ours.path
    table = source["embeddings.position_embedding.weight"].numpy()
    expected = resize_positions(table, 37)
    position = [w for w in b.weights if "position_embedding" in w.path]
    assert difference(array(position[0]), expected) == 0


def test_kerashub_preset_is_resized(tmp_path):
    encoder = builders.clip()
    get_entry(encoder).correct(encoder)
    encoder.save_to_preset(str(tmp_path / "preset"))
    resized = unimodal.image_encoder(tmp_path / "preset", image_size=64)
    assert resized.image_shape == (64, 64, 3)
    same = unimodal.image_encoder(tmp_path / "preset")
    images = {"images": np.ones((1, 32, 32, 3), "float32")}
    assert difference(array(same(images)), array(encoder(images))) == 0
    with pytest.raises(ValueError, match="multiple of 8 for this encoder"):
        unimodal.image_encoder(tmp_path / "preset", image_size=60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Presets of KerasHub without their weights, and transformers' folders."""
    root = tmp_path_factory.mktemp("encoders")
    for name in ("vit", "bert"):
        folder = root / f"hub_{name}"
        getattr(builders, name)().save_to_preset(folder)
        (folder / "model.weights.h5").unlink()
    vit().save_pretrained(root / "vit")
    bert().save_pretrained(root / "bert")
    (root / "unknown").mkdir()
    unknown = json.dumps({"model_type": "gpt2"})
    (root / "unknown" / "config.json").write_text(unknown)
    return root


@pytest.mark.parametrize(
    "name, read, error, message",
    [
        ("hub_bert", "image", ConversionError, "image encoders.*BertBackbone"),
        ("hub_vit", "text", ConversionError, "text encoders.*ViTBackbone"),
        ("hub_vit", 60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("vit", 60, ValueError, "`image_size`.*multiple of .*8.*60"),
        ("bert", "image", ConversionError, "of type .*vit.*model_type='bert'"),
        ("vit", "text", ConversionError, "of type .*bert.*model_type='vit'"),
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
