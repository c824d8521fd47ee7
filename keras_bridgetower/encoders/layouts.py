"""Layouts that convert tensors of PyTorch to Keras' variables, and back.

A layout is a pair of functions: `load` converts tensors to values, `save`
converts values to tensors. Most only move or reshape axes; `POSITIONS` adds two
tables.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """A pair of functions that convert weights in both directions.

    `load(tensors, shapes)` returns values of variables with these shapes.
    `save(values)` returns the tensors. `outside` is the number of rows at the
    start of the first tensor that the model does not hold; `save` makes them
    zero.
    """

    load: Callable
    save: Callable
    outside: int = 0


def _one_to_one(load, save):
    """Return a layout of one tensor and one variable."""
    return Layout(
        lambda tensors, shapes: [load(tensors[0], shapes[0])],
        lambda values: [save(values[0])],
    )


def reshaped(save):
    """Return the layout of a tensor with the same order of values.

    Args:
        save: function from a value to the tensor.
    """
    return _one_to_one(np.reshape, save)


def without_first(rows):
    """Return the layout of a table whose first rows the model does not hold."""
    return Layout(
        lambda tensors, shapes: [tensors[0][rows:]],
        lambda values: [np.pad(values[0], ((rows, 0), (0, 0)))],
        rows,
    )


# Weights whose axes are the same. `BIAS` of attention is split into heads in
# Keras.
SAME = reshaped(lambda x: x)
BIAS = reshaped(np.ravel)
SCALAR = reshaped(lambda x: np.reshape(x, ()))
# (out, in) -> (in, out), the outputs split into heads or not.
DENSE = _one_to_one(
    lambda x, shape: x.T.reshape(shape), lambda x: x.reshape(x.shape[0], -1).T
)
# (out, heads * size) -> (heads, size, out).
HEADS_DENSE = _one_to_one(
    lambda x, shape: x.T.reshape(shape), lambda x: x.reshape(-1, x.shape[-1]).T
)
# (out, in, height, width) -> (height, width, in, out).
CONV = _one_to_one(
    lambda x, shape: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
# (channels, 1, height, width) -> (height, width, channels, 1).
DEPTHWISE = _one_to_one(
    lambda x, shape: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1)
)
# (1, positions, width), as in ViT and DeiT.
LEADING_AXIS = reshaped(lambda x: x.reshape(1, -1, x.shape[-1]))
# One tensor in two variables; the first one is trained.
TWICE = Layout(
    lambda tensors, shapes: [tensors[0].reshape(shape) for shape in shapes],
    lambda values: values[:1],
)


def _split(one):
    """Return a layout for query, key and value in one tensor."""

    def load(tensors, shapes):
        parts = np.split(tensors[0], len(shapes))
        return [
            one.load([part], [shape])[0]
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def save(values):
        return [np.concatenate([one.save([value])[0] for value in values])]

    return Layout(load, save)


def _join(one):
    """Return a layout for query, key and value in one variable."""

    def load(tensors, shapes):
        shape = (*shapes[0][:-1], shapes[0][-1] // len(tensors))
        parts = [one.load([tensor], [shape])[0] for tensor in tensors]
        return [np.concatenate(parts, axis=-1)]

    def save(values):
        parts = np.split(values[0], 3, axis=-1)
        return [one.save([part])[0] for part in parts]

    return Layout(load, save)


JOINED_DENSE = _join(DENSE)
JOINED_BIAS = _join(BIAS)
SPLIT_DENSE = _split(DENSE)
SPLIT_BIAS = _split(BIAS)

# A tensor that files lack because it is zero.
ZEROS = Layout(
    lambda tensors, shapes: [np.zeros(shapes[0], "float32")], lambda values: []
)
# The rows of RoBERTa's position table up to that of padding, which is usually
# token 1. Keras' table does not have them.
PADDING_ROWS = 2


def positions(padding=PADDING_ROWS, types=1):
    """Return the layout of RoBERTa's positions and token types.

    The first token type is added to every token. KerasHub's RoBERTa has none,
    so its row is added to all positions.

    Args:
        padding: int, number of rows up to that of padding.
        types: int, number of token types.
    """

    def load(tensors, shapes):
        rows, token_types = tensors
        return [rows[padding:] + token_types[0]]

    def save(values):
        (rows,) = values
        no_types = np.zeros((types, rows.shape[-1]), rows.dtype)
        return [np.pad(rows, ((padding, 0), (0, 0))), no_types]

    return Layout(load, save, padding)


POSITIONS = positions()
