"""Bridges and managers against their formulas in NumPy."""

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import randomise
from formulas import attend
from formulas import dense
from formulas import gelu
from formulas import norm
from formulas import softmax
from formulas import weights_by_path
from keras import ops

from keras_bridgetower.models import bridges
from keras_bridgetower.models import managers

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS = 8, 2


def mlp(w, x):
    return dense(w, "output", gelu(dense(w, "hidden", x)))


def both(x, y):
    return np.concatenate([x, y], -1)


def gate(w, x):
    return 1 / (1 + np.exp(-dense(w, "gate", x)))


def mixed(alpha, x, y):
    return alpha * x + (1 - alpha) * y


FORMULAS = {
    "add": lambda w, x, y, m: x + y,
    "multiply": lambda w, x, y, m: x * y,
    "interpolate": lambda w, x, y, m: mixed(w["alpha"], x, y),
    "gate": lambda w, x, y, m: mixed(gate(w, both(x, y)), x, y),
    "linear": lambda w, x, y, m: dense(w, "linear", both(x, y)),
    "mlp": lambda w, x, y, m: mlp(w, both(x, y)),
    "cross_attention": lambda *args: attend(*args)[0],
    "cross_attention_ffn": lambda w, x, y, m: mlp(w, attend(w, x, y, m)[0]),
    "add_linear": lambda w, x, y, m: x + y + dense(w, "linear", both(x, y)),
    "scaled_add": lambda w, x, y, m: x + w["scale"] * y,
    "interpolate_scalar": lambda w, x, y, m: mixed(w["beta"], x, y),
}


def streams():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 5, WIDTH)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    return x, y, mask


@pytest.mark.parametrize("name", bridges.BRIDGES)
def test_bridges_equal_their_formulas(name):
    x, y, mask = streams()
    layer = bridges.get(name, WIDTH, HEADS)
    layer(x, y, mask)
    weights = weights_by_path(randomise(layer, 0.5), "attention/")
    merged = FORMULAS[name](weights, x, y, mask)
    expected = norm(weights, "layer_norm", merged)
    assert difference(layer(x, y, mask), expected) <= 2e-5


@pytest.mark.parametrize(
    "name, share",
    [
        *(("add_linear", 1), ("scaled_add", 1)),
        *(("interpolate", 0.5), ("interpolate_scalar", 0.5)),
    ],
)
def test_initial_values_of_bridges(name, share):
    x, y, _ = streams()
    layer = bridges.get(name, WIDTH)
    expected = norm({"x/gamma": 1.0, "x/beta": 0.0}, "x", share * (x + y))
    assert difference(layer(x, y), expected) <= 1e-5


STATES = 3
CLASSES = {"first_manager": managers.FirstManager, **managers.MANAGERS}


def inputs():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(STATES, 2, 5, WIDTH)).astype("float32")
    own = rng.normal(size=(2, 5, WIDTH)).astype("float32")
    other = rng.normal(size=(2, 7, WIDTH)).astype("float32")
    return list(states), own, other


def formula(name, w, states, own, other):
    """The output in float64, from `manager.md`'s formulas."""
    # Scores (N, batch or 1, tokens or 1, D or 1).
    added = 0
    if name == "adaptive_manager":
        c, q = norm(w, "own_norm", own), norm(w, "other_norm", other)
        logits = dense(w, "query", c) @ dense(w, "key", q).swapaxes(1, 2)
        attended = softmax(logits / np.sqrt(WIDTH)) @ q
        scores = dense(w, "controller", both(attended, c))
        scores = np.moveaxis(scores, -1, 0)[..., None]
        added = w["own_score"] * c
    else:
        scores = w["scores"][:, None, None]
        if name == "static_manager":
            added = w["own_score"] * norm(w, "own_norm", own)
    weights = softmax(scores / w["temperature"], 0)
    states = [norm(w, f"norm_{i}", x) for i, x in enumerate(states)]
    return sum(weights * np.stack(states)) + added


@pytest.mark.parametrize("name", CLASSES)
def test_managers_equal_their_formulas(name):
    layer = CLASSES[name](WIDTH, STATES)
    layer(*inputs())
    values = weights_by_path(layer)
    if name != "adaptive_manager":
        np.testing.assert_allclose(values["scores"], 1 / STATES)
    if name != "first_manager":
        assert (values["own_score"] == 1).all()
    assert values["temperature"] == 1
    weights = weights_by_path(randomise(layer))
    expected = formula(name, weights, *inputs())
    assert difference(layer(*inputs()), expected) <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_noise_is_drawn_anew_in_training_only(name):
    layer = CLASSES[name](WIDTH, STATES)
    layer(*inputs())
    randomise(layer)
    still = array(layer(*inputs()))
    assert difference(layer(*inputs(), training=False), still) == 0
    first, second = (array(layer(*inputs(), training=True)) for _ in range(2))
    assert difference(first, still) > 1e-3
    assert difference(first, second) > 1e-3


def test_noise_has_the_standard_deviation_of_the_authors():
    layer = managers.FirstManager(64, 4)
    states = [np.zeros((2, 50, 64), "float32")] * 4
    layer(states)
    layer.scores.assign(ops.zeros((4, 64)))
    for index, each in enumerate(layer.norms):
        # The output is the sum of two weights minus that of the others.
        each.beta.assign(ops.full((64,), 1.0 if index < 2 else -1.0))
    mixed = array(layer(states, training=True)).ravel()
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=1 / 4, size=(4, 100_000))
    weights = softmax(noise, 0)
    expected = (weights[:2] - weights[2:]).sum(0)
    assert mixed.std() == pytest.approx(expected.std(), rel=0.05)
    assert abs(mixed.mean()) < 0.02
