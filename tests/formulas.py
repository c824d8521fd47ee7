"""Layers in NumPy: their weights `w` are a dict from path to array."""

import math

import numpy as np
from builders import array


def weights_by_path(layer, prefix=""):
    """Return the weights of a layer in float64, by the path below it."""
    found = {}
    for weight in layer.weights:
        path = weight.path.partition("/")[2].removeprefix(prefix)
        found[path] = np.asarray(array(weight), "float64")
    return found


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def norm(w, name, x, epsilon=1e-5):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    return x * w[f"{name}/gamma"] + w[f"{name}/beta"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def attend(w, x, y, mask, name=""):
    """Return attention from x to y, and its weights."""
    q, k, v = (
        np.einsum("btd,dhe->bhte", z, w[f"{name}{part}/kernel"])
        + w[f"{name}{part}/bias"][None, :, None]
        for part, z in (("query", x), ("key", y), ("value", y))
    )
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
    weights, out = softmax(scores), f"{name}attention_output"
    mixed = np.einsum("bhts,bhse->bthe", weights, v)
    mixed = np.einsum("bthe,hed->btd", mixed, w[f"{out}/kernel"])
    return mixed + w[f"{out}/bias"], weights
