"""Weights that are loaded: no memory filled twice, and the right values."""

import keras
import numpy as np
import pytest
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (3,), (50, 7)])
def test_variables_take_over_memory(shape, dtype):
    variable = keras.Variable(np.zeros(shape), dtype=dtype)
    blocks = uninitialized.Blocks()
    values = blocks.empty(shape, "float32")
    blocks.empty((5,), "int32")[:] = 9  # The next one, which stays apart.
    values[...] = 0.5
    uninitialized.give(variable, values)
    del values
    np.testing.assert_array_equal(array(variable), np.full(shape, 0.5))
    variable.assign(variable + 1)
    np.testing.assert_array_equal(array(variable), np.full(shape, 1.5))
    with pytest.raises(ValueError, match="shape"):
        uninitialized.give(variable, blocks.empty((2, 2), "float32"))


def test_training_after_taking_over_memory():
    """One step is that of weights that were set in the usual way."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    blocks = uninitialized.Blocks()
    for weight in model.weights:
        zeros = blocks.empty(weight.shape, "float32")
        zeros[...] = 0
        uninitialized.give(weight, zeros)
    model.train_on_batch(np.ones((2, 8)), np.ones((2, 4)))
    # Of mean((w x + b - 1)^2) over 4 outputs: -2 / 4.
    for weight in model.weights:
        np.testing.assert_allclose(array(weight), 0.05, rtol=1e-6)


def test_blocks_are_aligned_and_disjoint():
    """Aligned arrays of their own, small ones side by side, whatever size."""
    blocks = uninitialized.Blocks()
    shapes = [(), (3,), (0,), (2**23, 2), (50, 7), (2**22,), (2**23 + 1,)]
    made = [blocks.empty(shape, "float32") for shape in shapes]
    for i, (shape, x) in enumerate(zip(shapes, made, strict=True)):
        assert x.shape == shape and x.ctypes.data % 64 == 0
        x[...] = i
    for i, x in enumerate(made):
        assert (x == i).all()
