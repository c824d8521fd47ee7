"""Layouts of the fusion and the heads, see `encoders.layouts`."""

import numpy as np

from keras_bridgetower.encoders.layouts import Layout
from keras_bridgetower.models.heads import LOGIT_SCALE_LIMITS


def _load_types(tensors, shapes):
    (rows,) = tensors
    # Pre-trained models have one image; the type of the second starts as a
    # copy of it.
    return [np.concatenate([rows, rows[1:2]])[: shapes[0][0]]]


# Files of models with one image have two rows, those of NLVR2 three.
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
