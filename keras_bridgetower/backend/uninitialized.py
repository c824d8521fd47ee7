"""Builds models with uninitialized weights, to load them faster.

PyTorch writes into the memory of a weight, so two weights must not share
memory. TensorFlow and JAX assign a new tensor.
"""

import functools
import math

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.variables import with_initializer
from keras_bridgetower.backend.keras_private.variables import without_values


def without_initialization(make, active=True, room=None):
    """Build a layer or model whose weights are uninitialized.

    All weights must be set afterwards. For a large model, drawing random
    weights or even writing zeros takes longer than reading a file. Models
    that other threads build are not affected.

    Args:
        make: callable that returns a new layer or model.
        active: bool; if False, the weights are initialized as usual.
        room: `(count, file)`, the maximum number of weights and the name of
            the file that they come from; or None. Used only if `active`.

    Returns:
        The layer or model.

    Raises:
        ValueError: it has more weights; no memory was allocated for them.

    Example:

    ```python
    def make():
        layer = keras.layers.Dense(1000)
        layer.build((None, 1000))
        return layer

    layer = without_initialization(make)
    layer.set_weights([np.ones((1000, 1000)), np.zeros(1000)])
    ```
    """
    if not active:
        return make()

    def check(variables):
        count = sum(math.prod(variable.shape) for variable in variables)
        if room is not None and count > room[0]:
            raise ValueError(
                f"It describes {count:,} weights, and {room[1]} has room for "
                f"at most {room[0]:,}."
            )

    return with_initializer(_cheapest_initializer(), make, check)


# A context in which weights have a shape and no value, to count those of a
# model of any size.
shapes_only = without_values


def _cheapest_initializer():
    """Return the fastest initializer of float weights."""
    if keras.distribution.distribution() is not None:
        # Keras divides the values of its own initializers among devices.
        return keras.initializers.Zeros()
    if keras.config.backend() == "torch":
        return keras.ops.empty

    # On TensorFlow and JAX `empty` writes zeros. They never write into a
    # tensor later, so all weights of one shape can share one.
    @functools.cache
    def zeros(shape, dtype):
        # By NumPy, because JAX would compile a program for each shape.
        return keras.ops.convert_to_tensor(np.zeros(shape, dtype))

    return zeros
