"""Checkpoint files of the authors of ManagerTower."""

import pathlib

import numpy as np
import official
import pytest
import torch
from builders import FASTEST
from builders import array
from builders import assert_same_weights
from builders import difference
from builders import slow_on

import keras_bridgetower as kbt
from keras_bridgetower.convert import authors
from keras_bridgetower.convert.checkpoint import to_tensors
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.encoders.roberta import PaddedRobertaBackbone
from keras_bridgetower.models.managers import MANAGERS
from keras_bridgetower.presets.errors import ConversionError

SHARED = pathlib.Path(__file__).parents[3] / "shared/data/official/manager"
TOWER = "cross_modal_text_manager_tower"


def saved(path, state, **config):
    torch.save(
        {"state_dict": state, "hyper_parameters": {"config": config}}, path
    )
    return authors.read(path)


def managed(bridge, task="vqa", **kwargs):
    return official.state_dict(task, bridges=False, managers=bridge, **kwargs)


def converted_back(checkpoint, backbone, heads):
    """All tensors of the file, made from the model."""
    return to_tensors(
        authors.rules(checkpoint.architecture, checkpoint.heads),
        variables_by_path(backbone, heads, encoder=backbone.image_encoder),
        backbone.extra,
    )


def assert_same_tensors(found, state):
    """Equal to the bit, half precision widened."""
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        np.testing.assert_array_equal(found[name], tensor.numpy(), name)


@slow_on("jax")
def test_outputs_equal_the_authors():
    path = SHARED / "manager_pretrain.ckpt"
    if not path.is_file():
        pytest.skip(f"the authors' outputs are not here: {SHARED}")
    expected = np.load(path.with_suffix(".npz"))
    inputs = np.load(SHARED / "inputs.npz")
    checkpoint = authors.read(path)
    backbone, heads = checkpoint.build()
    assert backbone.fusion.bridge == "adaptive_manager"
    encoders = backbone.text_encoder, backbone.image_encoder
    assert [x.num_layers for x in encoders] == [7, 8]
    out = backbone(
        {
            "images": inputs["image"],
            "token_ids": inputs["ids"].astype("int32"),
            "padding_mask": inputs["mask"].astype("int32"),
        },
        training=False,
    )
    # At padding, too.
    found = {
        "cls_feats": out["pooled"],
        "text_feats": out["text"],
        "image_feats": out["image"],
        "mlm_logits": heads["mlm"](out["text"]),
        "itm_logits": heads["itm"](out["pooled"]),
    }
    for name, x in found.items():
        assert difference(x, expected[name]) <= 2e-5, name
    state = torch.load(path, weights_only=True)["state_dict"]
    assert_same_tensors(converted_back(checkpoint, backbone, heads), state)


@FASTEST
@pytest.mark.parametrize(
    "bridge, image_layers", zip(MANAGERS, [3, 5], strict=True)
)
def test_tensors_come_back(bridge, image_layers, tmp_path):
    state = managed(bridge, image_layers=image_layers)
    checkpoint = saved(tmp_path / "model.ckpt", state)
    backbone, heads = checkpoint.build()
    assert backbone.fusion.bridge == bridge
    assert backbone.fusion.taps == (-3, -2, -1)
    assert isinstance(backbone.text_encoder, PaddedRobertaBackbone)
    assert_same_tensors(converted_back(checkpoint, backbone, heads), state)
    # From a preset, too.
    backbone.save_to_preset(tmp_path / "preset")
    opened = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    assert_same_weights(opened, backbone)
    assert_same_tensors(converted_back(checkpoint, opened, heads), state)


@FASTEST
def test_heads_of_retrieval_have_other_names(tmp_path):
    state = managed("adaptive_manager", "retrieval")
    for name in [name for name in state if name.startswith("itc_")]:
        state[f"cross_modal_{name}"] = state.pop(name)
    for name in ("rank_output.weight", "rank_output.bias"):
        del state[name]
    checkpoint = saved(tmp_path / "model.ckpt", state)
    backbone, heads = checkpoint.build()
    assert set(heads) == {"itm", "itc"}
    assert checkpoint.processors[1].mode == "squash"
    back = converted_back(checkpoint, backbone, heads)
    # It is stored as the logarithm of its reciprocal.
    name = "temperature"
    assert difference(back.pop(name), state.pop(name).numpy()) <= 1e-6
    assert_same_tensors(back, state)


@FASTEST
def test_padding_has_a_position_of_its_own(tmp_path):
    state = managed("adaptive_manager")
    backbone, _ = saved(tmp_path / "model.ckpt", state).build()
    ids = np.array([[0, 5, 2, 1, 1]], "int32")
    mask = np.array([[1, 1, 1, 0, 0]], "int32")
    tower = backbone.text_tower
    before = tower({"token_ids": ids, "padding_mask": mask})[0]
    x = array(before)
    assert difference(x[:, 3], x[:, 4]) == 0
    longer = {
        "token_ids": np.pad(ids, ((0, 0), (0, 2)), constant_values=1),
        "padding_mask": np.pad(mask, ((0, 0), (0, 2))),
    }
    assert difference(tower(longer)[0][:, :5], x) <= 1e-5


@FASTEST
@pytest.mark.parametrize(
    "name, change, message",
    [
        (f"{TOWER}.1.manager_layer.layer_scores_cross", None, "is missing"),
        ("layer_embeddings_image.weight", None, "is missing"),
        (f"{TOWER}.2.manager_layer.LayerNorm.4.weight", (64,), "has no place"),
        ("layer_embeddings_text.weight", (3, 64), r"\(3, 64\), not \(4, 64\)"),
        (f"{TOWER}.0.manager_layer.layer_scores", (1, 5, 1, 64), "1 to 4"),
        (f"{TOWER}.0.manager_layer.layer_scores", (3, 64), "with 4 axes"),
        (
            f"{TOWER.replace('text', 'image')}.1.manager_layer.fusion_attention"
            ".q_proj.weight",
            (64, 32),
            "has shape",
        ),
    ],
)
def test_wrong_tensors_are_listed(name, change, message, tmp_path):
    state = managed("adaptive_manager")
    state.pop(name, None)
    if change:
        state[name] = torch.zeros(change)
    with pytest.raises(ConversionError, match=message) as error:
        saved(tmp_path / "model.ckpt", state).build()
    assert name in str(error.value)


@FASTEST
def test_contradicting_settings_are_refused(tmp_path):
    state = managed("static_manager")
    with pytest.raises(ConversionError, match="managed_layers_text=6, but 3"):
        saved(tmp_path / "model.ckpt", state, managed_layers_text=6)


@FASTEST
def test_transformers_has_no_managers(tmp_path):
    checkpoint = saved(tmp_path / "model.ckpt", managed("static_manager"))
    backbone, _ = checkpoint.build()
    with pytest.raises(ConversionError, match="has no managers.*\n?.*static"):
        backbone.export_to_transformers(tmp_path / "folder")
