"""Weights that are loaded: no memory filled twice, and the right values."""

import keras
import numpy as np
from builders import array

from keras_bridgetower.backend import uninitialized


def test_initializers_of_loaded_weights_are_not_called():
    def refuse(shape, dtype):
        raise AssertionError("a weight that is overwritten was initialised")

    def make():
        layer = keras.layers.Dense(
            2, kernel_initializer=refuse, bias_initializer=refuse
        )
        layer.build((None, 3))
        return layer

    layers = [uninitialized.without_initialization(make) for _ in range(2)]
    values = [np.full((3, 2), 5.0), np.ones(2)]
    layers[0].set_weights(values)
    layers[1].set_weights([-v for v in values])
    for weight, value in zip(layers[0].weights, values, strict=True):
        np.testing.assert_array_equal(array(weight), value)
    fresh = keras.layers.Dense(2, kernel_initializer="ones")
    fresh.build((None, 3))
    np.testing.assert_array_equal(array(fresh.kernel), np.ones((3, 2)))
