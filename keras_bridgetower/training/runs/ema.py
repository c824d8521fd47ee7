"""Averaged weights (`use_ema`) of a run that has several calls of `fit`."""

import contextlib

import keras


@contextlib.contextmanager
def kept_apart(optimizer):
    """A context in which the end of `fit` leaves the weights as they are.

    Keras puts the averages in their place there, which is not yet the end of
    a run that goes on. On JAX it would do so after an error too, where it
    fails and hides what was raised.

    Args:
        optimizer: any Keras optimizer.
    """
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        # The class's own is found again.
        del optimizer.finalize_variable_values


def take(model):
    """Put the averages in the place of a trained model's weights, if any."""
    optimizer = model.optimizer
    # Before the first update they are zeros.
    if optimizer.built and int(
        keras.ops.convert_to_numpy(optimizer.iterations)
    ):
        optimizer.finalize_variable_values(model.trainable_weights)
