"""Averaged weights (`use_ema`) in a run that calls `fit` several times."""

import contextlib

import keras


@contextlib.contextmanager
def kept_apart(optimizer):
    """A context in which the end of `fit` does not change the weights.

    Keras replaces the weights by their averages at the end of each `fit`, but
    a run may continue after it. On JAX Keras would do so after an error, too,
    fail, and hide the first error.

    Args:
        optimizer: any Keras optimizer.
    """
    before = optimizer.finalize_variable_values
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        optimizer.finalize_variable_values = before


def take(model):
    """Replace the weights of a trained model by their averages, if any."""
    optimizer = model.optimizer
    # Before the first update the averages are zeros.
    if optimizer.built and int(
        keras.ops.convert_to_numpy(optimizer.iterations)
    ):
        optimizer.finalize_variable_values(model.trainable_weights)
