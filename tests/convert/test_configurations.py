"""Configurations as published, saved again, and by hand."""

import functools
import json
import pathlib
import shutil

import checkpoints
import copies
import pytest
import torch
import transformers
from builders import FASTEST
from peers import roberta
from peers import vit

from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import transformers_folder
from keras_bridgetower.convert import unimodal
from keras_bridgetower.convert.tensors import Tensors
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST
HUB = pathlib.Path(__file__).parents[3] / "shared" / "data" / "hub"
HEADS = {
    "bridgetower-base": (),
    "bridgetower-large-itm-mlm": ("itm", "mlm"),
    "bridgetower-large-itm-mlm-gaudi": ("itm", "mlm"),
    "bridgetower-large-itm-mlm-itc": ("itm", "mlm", "itc"),
    "edlee123_bridgetower": ("itm", "mlm", "itc"),
}


def published(name):
    folder = HUB / name
    if not folder.is_dir():
        pytest.skip(f"The published configurations are not here: {HUB}")
    return folder, json.loads((folder / "config.json").read_text())


@functools.cache
def shapes(name):
    """The shapes of transformers' model for a published configuration."""
    config = transformers.BridgeTowerConfig.from_dict(published(name)[1])
    classes = [checkpoints.HEADS[head] for head in HEADS[name]]
    made = {}
    with torch.device("meta"):
        for cls in classes or [transformers.BridgeTowerModel]:
            made |= cls(config).state_dict()
    return config, {k: tuple(v.shape) for k, v in made.items()}


@pytest.mark.parametrize("name", HEADS)
def test_published_folders_at_full_size(name, monkeypatch):
    folder, _ = published(name)
    config, found = shapes(name)
    found = Tensors(folder, found, None)
    monkeypatch.setattr(
        transformers_folder, "weight_file", lambda folder: folder
    )
    monkeypatch.setattr(transformers_folder, "open_tensors", lambda path: found)
    checkpoint = transformers_folder.read(folder)
    assert tuple(checkpoint.heads) == HEADS[name]
    a, text = checkpoint.architecture, config.text_config
    heads = text.num_attention_heads
    assert (a.num_heads, a.text_heads) == (heads, heads)
    assert a.image_heads == config.vision_config.hidden_size // 64
    assert (a.num_layers, a.vocabulary_size) == (6, 50_265)
    assert (a.dropout, a.layer_norm_epsilon) == (0.1, 1e-5)
    tokenizer, converter = checkpoint.processors
    assert tokenizer is None
    assert converter.image_size == (288 if name == "bridgetower-base" else 294)
    assert (converter.mode, converter.size_divisor) == ("hf", 32)


@pytest.mark.parametrize("name", [*HEADS, None])
def test_every_value_is_that_of_transformers(name):
    """Of the published files, and of one without any value."""
    config, found = transformers.BridgeTowerConfig(), configurations.DEFAULTS
    if name:
        folder, values = published(name)
        path = folder / "config.json"
        assert configurations.require_type(values, path, ["bridgetower"])
        config = config.from_dict(values)
        found = configurations.read_levels(values, path)
    levels = (config, config.text_config, config.vision_config)
    for mine, theirs in zip(found.values(), levels, strict=True):
        assert mine == {name: getattr(theirs, name) for name in mine}


PARTS = {"text_config": {"hidden_size": 64}, "vision_config": {"patch_size": 8}}


@pytest.mark.parametrize(
    "values, refused",
    [
        ({**PARTS, "link_tower_shared": False, "model_type": None}, None),
        ({**PARTS, "architectures": ["BridgeTowerForMaskedLM"]}, None),
        ({**PARTS, "link_tower_type": "add", "model_type": "blip"}, "'blip'"),
        ({**PARTS, "architectures": ["CLIPModel"]}, "CLIPModel"),
        ({**PARTS, "model_type": 3}, "model_type=3"),
        ({**PARTS, "architectures": {"a": 1}}, "architectures="),
        (PARTS, "model_type=None"),
    ],
)
def test_bridgetower_configurations_are_recognized(values, refused):
    require = functools.partial(configurations.require_type, values)
    if refused:
        with pytest.raises(ConversionError, match=refused):
            require("config.json", ["bridgetower"])
    else:
        assert require("config.json", ["bridgetower"]) == "bridgetower"


def test_older_names_and_places():
    levels = configurations.read_levels(
        {
            "link_tower_shared": True,
            "cross_modal_transform_shared": False,
            "text_config": None,
            "text_config_dict": {"hidden_size": 64},
            "vision_config_dict": None,
            "vision_config": {"vit_remove_last": True, "patch_size": 8},
            "head_hidden_scale": 2,
        },
        "config.json",
    )
    top, text, vision = levels.values()
    assert top["share_link_tower_layers"] is True
    assert top["share_cross_modal_transformer_layers"] is False
    assert (text["hidden_size"], text["vocab_size"]) == (64, 50_265)
    assert vision["remove_last_layer"] is True


@pytest.mark.parametrize("make", [vit, roberta])
def test_encoders_without_a_model_type(make, tmp_path):
    make().save_pretrained(tmp_path / "named")
    shutil.copytree(tmp_path / "named", tmp_path / "bare")
    config = tmp_path / "bare" / "config.json"
    copies.edit(config, lambda values: values.pop("model_type"))
    read = unimodal.text_encoder if make is roberta else unimodal.image_encoder
    bare, named = read(tmp_path / "bare"), read(tmp_path / "named")
    assert bare.get_config() == {**named.get_config(), "name": bare.name}
    copies.edit(config, lambda values: values.pop("architectures"))
    with pytest.raises(ConversionError, match="model_type=None"):
        read(tmp_path / "bare")
