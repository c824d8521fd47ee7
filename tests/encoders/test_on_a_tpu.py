"""Attention where JAX says that it runs on a TPU, and its memory.

Keras then takes Splash attention, which has other values. Its kernel is
interpreted on the CPU here, so these tests see them.
"""

import copy
import functools
import types

import keras
import keras_hub
import numpy as np
import pytest
from builders import array
from builders import randomise
from formulas import softmax
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.attention import choose_attention
from keras_bridgetower.backend.remat import checkpoint
from keras_bridgetower.models.attention import BridgeTowerAttention
from keras_bridgetower.models.attention import watch_attention

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "jax", reason="Splash is of JAX alone"
)
RNG = np.random.default_rng(0)


@pytest.fixture
def tpu(monkeypatch, caplog):
    """A function that starts the pretense; nothing may be logged after it."""
    import jax
    from keras.src.backend.jax import nn

    def start():
        kernel = nn.splash_attention_kernel
        interpreted = functools.partial(kernel.make_splash_mha, interpret=True)
        monkeypatch.setattr(kernel, "make_splash_mha", interpreted)
        device = types.SimpleNamespace(platform="tpu")
        monkeypatch.setattr(jax, "devices", lambda *args: [device])

    yield start
    logged = [(r.levelname, r.getMessage()) for r in caplog.get_records("call")]
    assert logged == []


def by_softmax(
    query, key, value, mask=None, scale=None, is_causal=False, **ignored
):
    """`ops.dot_product_attention` in NumPy."""
    query, key, value = (np.asarray(x, "float64") for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key)
    scores *= query.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None:
        scores = np.where(np.asarray(mask), scores, -np.inf)
    if is_causal:
        scores = np.where(np.tril(np.ones(scores.shape[2:])), scores, -np.inf)
    mixed = np.einsum("bhqk,bkhd->bqhd", softmax(scores), value)
    return mixed.astype("float32")


def expected(function, *args):
    """The results of a function whose attention is computed by NumPy."""
    from keras.src.backend.jax import nn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn, "dot_product_attention", by_softmax)
        return keras.tree.map_structure(array, function(*args))


def assert_right(function, right, *args):
    """A function has these results, eagerly and compiled."""
    import jax

    for call in (function, jax.jit(function)):
        for one, expected in zip(call(*args), right, strict=True):
            np.testing.assert_allclose(array(one), expected, atol=2e-5)


def masks(batch, queries, keys):
    """Another number of keys for each row."""
    kept = np.arange(keys) < keys // np.arange(1, batch + 1)[:, None]
    return np.broadcast_to(kept[:, None], (batch, queries, keys))


@pytest.mark.parametrize("queries, keys", [(128, 128), (325, 325), (128, 256)])
def test_attention_of_this_library(queries, keys, tpu):
    layer = BridgeTowerAttention(2, 64, dropout=0.1)
    x = RNG.normal(size=(2, queries, 128)).astype("float32")
    y = RNG.normal(size=(2, keys, 128)).astype("float32")

    def attend(x, y, mask):
        return layer(x, y), layer(x, y, attention_mask=mask)

    given = x, y, masks(2, queries, keys)
    right = expected(attend, *given)
    tpu()
    assert_right(attend, right, *given)


IMAGES = RNG.normal(size=(2, 64, 64, 3)).astype("float32")
IDS = RNG.integers(5, 60, (2, 128)).astype("int32")
TEXT = {
    "token_ids": IDS,
    "padding_mask": masks(2, 1, 128)[:, 0].astype("int32"),
}
SIZES = dict(num_layers=1, num_heads=2, hidden_dim=128, intermediate_dim=32)
IMAGE_SIZES = SIZES | dict(patch_size=4, image_shape=(64, 64, 3))
TEXT_SIZES = SIZES | dict(vocabulary_size=60, max_sequence_length=128)
DINO_SIZES = dict(patch_size=4, num_register_tokens=6, image_shape=(44, 44, 3))
models = keras_hub.models
# Encoders of 128 or 256 tokens without dropout, and their inputs.
ENCODERS = {
    "siglip": (lambda: models.SigLIPVisionEncoder(**IMAGE_SIZES), IMAGES),
    "dinov3": (
        lambda: models.DINOV3Backbone(**SIZES | DINO_SIZES),
        IMAGES[:, :44, :44],
    ),
    "clip text": (
        lambda: models.CLIPTextEncoder(**TEXT_SIZES, embedding_dim=128),
        TEXT,
    ),
    "roberta": (
        lambda: models.RobertaBackbone(**TEXT_SIZES, dropout=0.0),
        TEXT,
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_attention_of_encoders(name, tpu):
    make, inputs = ENCODERS[name]
    tower = kbt.Tower(randomise(make()), (-1,))
    (right,) = expected(tower, inputs)
    tpu()
    assert_right(copy.deepcopy(tower), [right], inputs)
    # Of an encoder without a tower, which would put a summary before these.
    alone = make()
    last = kbt.hidden_states(alone)[-1][:, -100:]
    states = keras.Model(alone.inputs, last)
    states.set_weights(tower.get_weights())
    read = [inputs[x.name] if inputs is TEXT else inputs for x in alone.inputs]
    np.testing.assert_allclose(array(states(read)), right[:, -100:], atol=2e-5)


def largest_kept(function, *inputs):
    """The values of the largest array that is kept, and the gradients."""
    import jax

    outputs, backward = jax.vjp(function, *inputs)
    kept = [x.size for x in jax.tree.leaves(backward) if x.ndim > 3]
    return max(kept, default=0), backward(np.cos(outputs))


@pytest.mark.parametrize("name", ["siglip", "roberta"])
def test_encoders_keep_no_weights_of_attention(name):
    import jax

    make, inputs = ENCODERS[name]
    tower = kbt.Tower(randomise(make()), (-1,))
    state = [v.value for v in tower.trainable_variables]
    other = [v.value for v in tower.non_trainable_variables]

    def states(state):
        call = tower.stateless_call
        return call(state, other, inputs, training=True)[0][0]

    kept, _ = largest_kept(jax.jit(states), state)
    tokens = tower(inputs)[0].shape[1] - 1  # One may be a summary.
    assert 0 < kept < 2 * SIZES["num_heads"] * tokens**2


def test_weights_of_attention_are_computed_again_with_the_same_dropout():
    x = RNG.normal(size=(2, 40, 16)).astype("float32")
    found = []
    for watch in (lambda name, weights: weights, None):
        layer = BridgeTowerAttention(2, 8, dropout=0.5, seed=1)
        keras.utils.set_random_seed(0)
        layer.build(x.shape, x.shape)
        with watch_attention(watch):
            attend = functools.partial(layer, training=True)
            found.append(largest_kept(attend, x, x))
    (whole, right), (kept, gradients) = found
    assert kept < 2 * 2 * 40**2 <= whole
    np.testing.assert_allclose(gradients, right, atol=1e-6)


class OwnAttention(keras.layers.Layer):
    """A layer of another library, which passes arguments by position."""

    def call(self, x):
        return ops.dot_product_attention(x, x, x, None, None, 0.5)


@pytest.mark.parametrize(
    "calls", [(choose_attention, checkpoint), (checkpoint, choose_attention)]
)
def test_a_layer_with_another_call_can_be_checkpointed(calls):
    x = RNG.normal(size=(2, 20, 2, 8)).astype("float32")
    layer = OwnAttention()
    right = array(layer(x, training=True))
    for call in calls:
        call(layer)
    assert layer.call.checkpoints
    kept, _ = largest_kept(lambda x: layer(x, training=True), x)
    assert kept <= x.size
    np.testing.assert_allclose(array(layer(x, training=True)), right, atol=1e-6)
