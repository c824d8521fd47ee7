"""Test that backends, and recomputed activations, give the same numbers."""

import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import clip
from builders import features
from builders import randomise
from builders import roberta
from builders import slow_on
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend.keras_private.variables import temporary_values
from keras_bridgetower.training import planning


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


def answering(model):
    y = np.eye(4, dtype="float32")[:3]
    return kbt.BridgeTowerVQA(model, answers=ANSWERS), features(model), y


def filling(model):
    """A task that reads only the text: the last layer skips the image."""
    x = {**features(model), "mask_positions": np.array([[1, 2]] * 3, "int32")}
    return kbt.BridgeTowerMaskedLM(model), x, x["token_ids"][:, 1:3]


# Compiling takes long; tests of every encoder have the others.
CASES = {
    "jax": [answering],
    "tensorflow": [filling],
    "torch": [answering, filling],
}[keras.config.backend()]


def trained(make, prepare):
    """Return the variables after two steps with dropout, and the losses."""
    keras.utils.set_random_seed(0)
    text = roberta(layers=1, dropout=0.3)
    model = backbone(clip(layers=1), text, num_layers=1, dropout=0.3)
    task, x, y = make(randomise(model))
    prepare(model)
    jit = keras.config.backend() == "jax"
    task.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
    history = task.fit(x, y, epochs=2, batch_size=3, verbose=0).history
    return [array(v).astype("float64") for v in task.variables], history["loss"]


def checkpointed(model):
    model.checkpoint_activations()


@slow_on("tensorflow", "jax")
@pytest.mark.parametrize("make", CASES)
def test_recomputation_does_not_change_training(make):
    plain, losses = trained(make, lambda model: None)
    made, others = trained(make, checkpointed)
    # Including seed generators: the same number of masks was drawn.
    assert_same_weights(plain, made, most=1e-6)
    np.testing.assert_allclose(losses, others, rtol=1e-6)


@FASTEST
def test_recomputation_keeps_fewer_activations():
    def kept(prepare):
        model = backbone(dropout=0.3)
        prepare(model)
        return planning.activation_bytes(model, features(model))

    plain = kept(lambda model: None)
    assert kept(checkpointed) < plain / 3
