"""What differs by backend gives the same numbers on each."""

import keras
import numpy as np
import pytest
from builders import array
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend.keras_private.variables import temporary_values


def test_gradients():
    x, unused = np.array([1.0, -2.0], "float32"), np.ones(3, "float32")
    found = backend_ops.gradients(lambda xs: ops.sum(xs[0] ** 3), [x, unused])
    np.testing.assert_allclose(found[0], 3 * x**2, rtol=1e-6)
    np.testing.assert_array_equal(found[1], np.zeros(3))


def test_an_adam_step_sees_the_sum_of_repeated_rows():
    """The moments equal those of a dense gradient, in closed form."""

    class Lookup(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(5, 2), initializer="ones")

        def call(self, ids):
            rows = backend_ops.lookup(ops.convert_to_tensor(self.table), ids)
            return ops.sum(rows, axis=1)

    model = keras.Sequential([keras.Input((4,), dtype="int32"), Lookup()])
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mae", jit_compile=False)
    model.fit(np.array([[2, 2, 2, 4]]), np.zeros((1, 2)), verbose=0)
    moments = {v.path.split("/")[-1]: array(v) for v in optimizer.variables}
    (velocity,) = (v for k, v in moments.items() if "velocity" in k)
    gradient = np.zeros((5, 2))
    gradient[2], gradient[4] = 3 / 2, 1 / 2
    np.testing.assert_allclose(velocity, 0.001 * gradient**2, rtol=1e-5)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="its values only")
def test_gathered_weights_can_be_read():
    """As `save_to_preset` does, which asks whether new heads have learnt."""
    variable = keras.Variable(np.zeros(3, "float32"))
    assert backend_ops.local_part(variable).tolist() == [0, 0, 0]
    with temporary_values([variable], [np.arange(3, dtype="float32")]):
        assert backend_ops.local_part(variable).tolist() == [0, 1, 2]
