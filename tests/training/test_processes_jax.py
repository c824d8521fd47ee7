"""How processes of JAX find each other."""

import inspect

import keras
import numpy as np
import pytest

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend.keras_private.variables import temporary_values
from keras_bridgetower.distribution import on_jax

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "jax", reason="it is JAX's"
)
VARIABLES = "JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"


@pytest.mark.parametrize(
    "values",
    [("host:1", "2", "0"), ("host:1,other:2", "2", "1"), (None, None, None)],
)
def test_processes_connect_as_by_keras_with_a_shorter_timeout(
    monkeypatch, values
):
    import jax

    signature = inspect.signature(jax.distributed.initialize)
    called = []

    def initialize(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        called.append(dict(bound.arguments))

    initialize.__signature__ = signature
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(on_jax, "share_seed", lambda: None)
    for name, value in zip(VARIABLES, values, strict=True):
        name = f"KERAS_DISTRIBUTION_{name}"
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    # Given a seed, Keras draws none.
    keras.utils.set_random_seed(0)
    keras.distribution.initialize()
    on_jax.initialize()
    keras_own, ours = called
    assert keras_own["heartbeat_timeout_seconds"] > 60
    assert ours.pop("heartbeat_timeout_seconds") < 60
    keras_own.pop("heartbeat_timeout_seconds")
    assert ours == keras_own


def test_gathered_weights_can_be_read():
    """As `save_to_preset` does, which asks whether new heads have learnt."""
    variable = keras.Variable(np.zeros(3, "float32"))
    whole = np.arange(3, dtype="float32")
    assert backend_ops.local_part(variable).tolist() == [0, 0, 0]
    with temporary_values([variable], [whole]):
        assert backend_ops.local_part(variable).tolist() == [0, 1, 2]
