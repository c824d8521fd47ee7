"""How one library lays a weight out, and how the other does.

A layout is a pair of functions, `load` from the tensors of a checkpoint to
the values of variables and `save` back, both exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bridgetower.models.heads import LOGIT_SCALE_LIMITS


class Layout(NamedTuple):
    """How tensors become variables, and variables tensors.

    `load(tensors, shapes)` gives values of these shapes, `save(values)` the
    tensors.
    """

    load: Callable
    save: Callable


def _one(load, save):
    """A layout of one tensor and one variable."""
    return Layout(
        lambda tensors, shapes: [load(tensors[0], shapes[0])],
        lambda values: [save(values[0])],
    )


# Norms, tables, and biases, whichever way the heads are split.
SAME = _one(
    lambda x, shape: np.reshape(x, shape), lambda x: np.reshape(x, x.shape)
)
BIAS = _one(lambda x, shape: np.reshape(x, shape), np.ravel)
SCALAR = _one(
    lambda x, shape: np.reshape(x, shape), lambda x: np.reshape(x, ())
)
# (out, in) -> (in, out), the outputs split into heads or not.
DENSE = _one(
    lambda x, shape: x.T.reshape(shape),
    lambda x: x.reshape(x.shape[0], -1).T,
)
# (out, heads * size) -> (heads, size, out).
HEADS_DENSE = _one(
    lambda x, shape: x.T.reshape(shape),
    lambda x: x.reshape(-1, x.shape[-1]).T,
)
# (out, in, height, width) -> (height, width, in, out).
CONV = _one(
    lambda x, shape: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1),
)
# (1, 1, width) and (1, positions, width), as ViT and DeiT keep them.
LEADING_AXIS = _one(
    lambda x, shape: np.reshape(x, shape),
    lambda x: x.reshape(1, -1, x.shape[-1]),
)


def _split(one):
    """Query, key and value out of one tensor, each laid out as `one`."""

    def load(tensors, shapes):
        parts = np.split(tensors[0], len(shapes))
        return [
            one.load([part], [shape])[0]
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def save(values):
        return [np.concatenate([one.save([value])[0] for value in values])]

    return Layout(load, save)


SPLIT_DENSE = _split(DENSE)
SPLIT_BIAS = _split(BIAS)

# RoBERTa's first two position rows are for padding, which nothing reads.
PADDING_ROWS = 2


def _load_positions(tensors, shapes):
    positions, token_type = tensors
    return [positions[PADDING_ROWS:] + token_type]


def _save_positions(values):
    (rows,) = values
    padding = np.zeros((PADDING_ROWS, rows.shape[-1]), rows.dtype)
    return [np.concatenate([padding, rows]), padding[:1].copy()]


# The only token type is added to every token: it is folded into positions.
POSITIONS = Layout(_load_positions, _save_positions)


def _load_types(tensors, shapes):
    (rows,) = tensors
    # Pre-training knows one image; the second starts as a copy of it.
    return [np.concatenate([rows, rows[1:2]])[: shapes[0][0]]]


# Two rows in a file of models with one image, three in one of NLVR2.
TWO_TYPES = Layout(_load_types, lambda values: [values[0][:2]])
THREE_TYPES = Layout(_load_types, lambda values: [values[0]])


def _load_temperature(tensors, shapes):
    if not 0 < float(tensors[0]) < np.inf:
        raise ValueError(f"A temperature must be positive, not {tensors[0]}.")
    scale = -np.log(np.float32(tensors[0]))
    return [np.clip(scale, *LOGIT_SCALE_LIMITS).astype("float32").reshape(())]


# The authors divide by a temperature, transformers multiplies by exp(scale).
TEMPERATURE = Layout(
    _load_temperature, lambda values: [np.exp(-np.float32(values[0]))]
)
