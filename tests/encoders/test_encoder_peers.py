"""Every encoder from a folder of `transformers`: states and sizes."""

import dataclasses
import shutil

import copies
import keras
import numpy as np
import peers
import pytest
import torch
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import run
from builders import run_once

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets.errors import ConversionError

# Other settings of an encoder that is compared anyway.
VARIANTS = (
    *("DINOv2", "DINOv2 SwiGLU", "DINOv3 gated", "ViT with pooler"),
    "EfficientNet with odd sides",
    *("ResNet of bottleneck blocks", "SigLIP 2", "SigLIP 2 (NaFlex)"),
    *("MetaCLIP 2 (gelu)", "ELECTRA without projection"),
    *("ALBERT with two groups of two blocks", "DeBERTa-v3 with long texts"),
)


def some(cases, mark=pytest.mark.slow):
    """Return parameters of a test, the variants with a mark."""
    return [
        pytest.param(p, marks=mark) if p.name in VARIANTS else p for p in cases
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that makes a peer and its folder, once each."""
    made = {}

    def get(peer):
        if peer.name not in made:
            folder = tmp_path_factory.mktemp("peer")
            model = peer.make()
            model.save_pretrained(folder)
            made[peer.name] = model, folder
        return made[peer.name]

    return get


def opened(peer, folder, **kwargs):
    read = {"image": unimodal.image_encoder, "text": unimodal.text_encoder}
    return read[peer.side](folder, **kwargs)


def tower_of(encoder, summary=None):
    count = len(kbt.hidden_states(encoder))
    return kbt.Tower(encoder, range(-count, 0), summary=summary)


def own_rows(x, wanted):
    """Return a state without rows that the tower adds in front."""
    return array(x)[:, x.shape[1] - wanted.shape[1] :]


def given(tower, inputs):
    """Return the inputs that a tower takes."""
    if not isinstance(inputs, dict):
        return inputs
    return {key: inputs[key] for key in tower.input}


def compared(peer, encoder, expected, inputs):
    """Return a model of all states, and pairs of ours and theirs."""
    grids = any(x is not None and x.ndim == 4 for x in expected)
    if grids:
        # Before the tower brings all grids to one size.
        states = keras.Model(encoder.inputs[0], kbt.hidden_states(encoder))
    else:
        states = tower_of(encoder, peer.summary)
    got = run_once(states, given(states, inputs))
    got = got if isinstance(got, list) else [got]
    pairs = []
    for x, wanted in zip(got, expected, strict=True):
        if wanted is None:
            continue
        x = array(x) if grids else own_rows(x, wanted)
        if peer.side == "text" and peer.masked:
            rows = inputs["padding_mask"] == 1
            x, wanted = x[rows], wanted[rows]
        pairs.append((x, wanted))
    return states, pairs


def parameters_of(model):
    weights = [w for w in model.weights if not w.path.endswith("position_ids")]
    return sum(int(np.prod(w.shape)) for w in weights)


@pytest.mark.parametrize(
    "peer", some(peers.PEERS, mark=LONG_ELSEWHERE), ids=str
)
def test_states_and_parameters_are_those_of_transformers(peer, saved):
    model, folder = saved(peer)
    inputs = peers.inputs_for(peer)
    expected = peer.states(model, inputs)
    states, pairs = compared(peer, opened(peer, folder), expected, inputs)
    assert parameters_of(states) == peer.parameters(model)
    for x, wanted in pairs:
        assert difference(x, wanted) <= 1e-5


@LONG_ELSEWHERE
@pytest.mark.parametrize(
    "peer",
    some(p for p in peers.PEERS if p.side == "image" and p.resizes),
    ids=str,
)
def test_another_image_size(peer, saved):
    model, folder = saved(peer)
    for side in (peer.image_size // 2, 2 * peer.image_size):
        tower = tower_of(opened(peer, folder, image_size=side))
        images = peers.inputs_for(dataclasses.replace(peer, image_size=side))
        expected = peer.states(model, images)
        for x, wanted in zip(run(tower, images), expected, strict=True):
            assert difference(own_rows(x, wanted), wanted) <= 1e-5


@FASTEST
@pytest.mark.parametrize("peer", some(peers.PEERS), ids=str)
def test_a_tensor_too_many_is_named(peer, saved, tmp_path):
    folder = shutil.copytree(saved(peer)[1], tmp_path / "peer")
    extra = {"an.extra.weight": torch.ones(3)}
    copies.edit_tensors(folder, lambda state: state.update(extra))
    with pytest.raises(ConversionError, match="an.extra.weight"):
        opened(peer, folder)
