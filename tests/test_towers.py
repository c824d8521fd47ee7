"""Towers: the states of every encoder."""

import keras
import keras_hub
import numpy as np
import pytest
from builders import IMAGE_ENCODERS
from builders import LONG_ELSEWHERE
from builders import TEXT_ENCODERS
from builders import array
from builders import clip
from builders import deit
from builders import difference
from builders import features
from builders import randomise
from builders import roberta
from builders import run

import keras_bridgetower as kbt

pytestmark = LONG_ELSEWHERE


def own_input(encoder):
    """Return features in the form of the inputs of an encoder."""
    made = features()
    made["segment_ids"] = np.zeros_like(made["token_ids"])
    if len(encoder.inputs) == 1:
        return made["images"]
    return {key: made[key] for key in encoder.input}


def last_output(encoder, inputs):
    if isinstance(encoder, keras_hub.models.CLIPVisionEncoder):
        inputs = {"images": inputs}
    outputs = run(encoder, inputs)
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


@pytest.mark.parametrize("name", [*IMAGE_ENCODERS, *TEXT_ENCODERS])
def test_states_equal_the_outputs_of_encoders(name):
    make = (IMAGE_ENCODERS | TEXT_ENCODERS)[name]
    encoder = make()
    tower = kbt.Tower(encoder, range(-encoder.num_layers, 0))
    randomise(encoder)
    states = run(tower, own_input(encoder))
    assert len(states) == encoder.num_layers
    top = last_output(encoder, own_input(encoder))
    assert difference(states[-1], top) <= 1e-5
    # A lower state is the output of a shallower encoder of the same weights.
    shallow = make(layers=encoder.num_layers - 1)
    kbt.Tower(shallow, (-1,))
    given = {w.path.split("/", 1)[-1]: w for w in encoder.weights}
    by_path = {w.path: w for w in encoder.weights}
    for weight in shallow.weights:
        own = weight.path.split("/", 1)[-1]
        weight.assign(by_path.get(weight.path, given[own]))
    top = last_output(shallow, own_input(shallow))
    assert difference(states[-2], top) <= 1e-5


def test_blocks_above_the_highest_tap_are_excluded():
    encoder = clip(layers=3)
    whole = kbt.Tower(encoder, (-2, -1))
    lower = kbt.Tower(encoder, (-3, -2))
    block = len(encoder.encoder_layers[0].weights)
    assert len(whole.weights) - len(lower.weights) == block


def test_towers_alone_correct_the_defaults_of_their_encoders():
    image, text = clip(), TEXT_ENCODERS["bert"]()
    kbt.hidden_states(image)
    kbt.hidden_states(text)
    assert not array(image.embedding.position_ids).any()
    before = gelu_layers(text)[0].activation
    kbt.Tower(image, (-1,))
    kbt.Tower(text, (-1,))
    positions = array(image.embedding.position_ids)
    np.testing.assert_array_equal(positions, [np.arange(17)])
    assert before is not keras.activations.gelu
    for layer in gelu_layers(text):
        assert layer.activation is keras.activations.gelu


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16"])
def test_towers_have_the_policy_of_their_encoders(dtype):
    made = [kbt.Tower(make(dtype=dtype), (-1,)) for make in (clip, roberta)]
    made += [kbt.Tower.from_config(tower.get_config()) for tower in made]
    assert {tower.dtype_policy.name for tower in made} == {dtype}
    encoder = clip(dtype=dtype)
    encoder.quantize("int8")
    assert kbt.Tower(encoder, (-1,)).dtype_policy.name == dtype


def gelu_layers(bert):
    return [
        layer
        for block in bert.transformer_layers
        for layer in block._flatten_layers()
        if layer.name == "feedforward_intermediate_dense"
    ]


@pytest.mark.parametrize("make", [clip, deit])
def test_per_tap_norms_start_as_copies(make):
    encoder = make()
    randomise(encoder)
    shared = kbt.Tower(encoder, (-2, -1))
    own = kbt.Tower(encoder, (-2, -1), norms="per_tap")
    inputs = own_input(encoder)
    before = run(shared, inputs)
    for a, b in zip(before, run(own, inputs), strict=True):
        assert difference(a, b) <= 1e-6
    gamma = own.get_layer("tap_0_norm").gamma
    gamma.assign(array(gamma) * 2)
    low, high = run(own, inputs)
    assert difference(high, before[1]) <= 1e-6
    assert difference(low, before[0]) > 0.1
