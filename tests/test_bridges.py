"""Each bridge against its formula in NumPy."""

import math

import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference

from keras_bridgetower.models import bridges

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS = 8, 2


def layer_norm(x, epsilon=1e-5):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(w, x, y, mask):
    q, k, v = (
        np.einsum("btd,dhe->bhte", z, w[f"{part}/kernel"])
        + w[f"{part}/bias"][None, :, None]
        for part, z in (("query", x), ("key", y), ("value", y))
    )
    scores = np.einsum("bhte,bhse->bhts", q, k) / math.sqrt(WIDTH // HEADS)
    scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bhse->bthe", weights, v)
    out = np.einsum("bthe,hed->btd", mixed, w["attention_output/kernel"])
    return out + w["attention_output/bias"]


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


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
    "cross_attention": attend,
    "cross_attention_ffn": lambda w, x, y, m: mlp(w, attend(w, x, y, m)),
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
    for weight in layer.weights:
        if "layer_norm" not in weight.path:
            rng = np.random.default_rng(len(weight.path))
            noise = rng.normal(size=weight.shape, scale=0.5)
            weight.assign(array(weight) + noise)
    weights = {}
    for weight in layer.weights:
        path = weight.path.removeprefix(f"{layer.name}/")
        values = array(weight).astype("float64")
        weights[path.removeprefix("attention/")] = values
    expected = layer_norm(FORMULAS[name](weights, x, y, mask))
    assert difference(layer(x, y, mask), expected) <= 2e-5


@pytest.mark.parametrize(
    "name, same_as",
    [
        ("add_linear", lambda x, y: x + y),
        ("scaled_add", lambda x, y: x + y),
        ("interpolate", lambda x, y: (x + y) / 2),
        ("interpolate_scalar", lambda x, y: (x + y) / 2),
    ],
)
def test_initial_values_of_bridges(name, same_as):
    x, y, mask = streams()
    layer = bridges.get(name, WIDTH)
    assert difference(layer(x, y), layer_norm(same_as(x, y))) <= 1e-5


def test_custom_bridge():
    @keras.saving.register_keras_serializable("tests")
    class MaxBridge(bridges.BridgeLayer):
        def merge(self, x, y, mask=None):
            return keras.ops.maximum(x, y)

    assert bridges.serialize(MaxBridge) == "tests>MaxBridge"
    x, y, mask = streams()
    for identifier in (MaxBridge, "tests>MaxBridge"):
        layer = bridges.get(identifier, WIDTH)
        expected = layer_norm(np.maximum(x, y))
        assert difference(layer(x, y), expected) <= 1e-5
