"""Finds and reports steps whose loss or gradients are not finite."""

import math
import warnings

from keras_bridgetower.backend import keras_patches
from keras_bridgetower.training.runs.folders import CheckpointError


class Watch:
    """Finds the steps of a run that failed, and reports each once.

    Args:
        model: the compiled model, before the first step.
        is_finite: bool, whether the logged loss was finite so far.

    Attributes:
        is_finite: bool, whether the logged loss was finite after the last
            step. It is a mean over the epoch, so once it is not finite, it
            stays so until the next epoch.
    """

    def __init__(self, model, is_finite=True):
        self._model = model
        self._refused = _refused(model)
        self.is_finite = is_finite

    def begin_epoch(self):
        """Reset at the start of an epoch, as Keras resets the mean loss."""
        self.is_finite = True

    def failure(self, loss):
        """What failed in the last step.

        Args:
            loss: float, the logged mean loss.

        Returns:
            str, `""` if nothing failed.
        """
        refused, was_refused = _refused(self._model), self._refused
        is_finite, was_finite = math.isfinite(loss), self.is_finite
        self._refused, self.is_finite = refused, is_finite
        if refused > was_refused:
            return "the gradients are not finite"
        return "the loss is not finite" if was_finite and not is_finite else ""


def text(failure, loss, position, ids):
    """The message about a step that failed.

    Args:
        failure: str, from `Watch.failure`.
        loss: float, the logged loss.
        position: `Position` of the step.
        ids: ids of the samples of the batch.

    Returns:
        str.
    """
    return (
        "The loss and its gradients must be finite. The checkpoints before "
        f"are as they were. Received: loss={loss} at step {position.step} of "
        f"epoch {position.epoch}, with the samples {list(ids)}: {failure}"
    )


def _stop(message):
    raise CheckpointError(message)


REPORTS = {"stop": _stop, "skip": warnings.warn}


def _refused(model):
    """A number that grows with each update skipped for its gradients."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    count = 0
    if hasattr(inner, "skipped"):
        count = int(keras_patches.optimizer_value(model, inner.skipped))
    if hasattr(optimizer, "dynamic_scale"):
        # With loss scaling, scaled gradients overflow now and then, and the
        # scale is halved. Only if it falls below 1, the gradients themselves
        # are not finite.
        scale = keras_patches.optimizer_value(model, optimizer.dynamic_scale)
        count += max(0, -math.log2(max(float(scale), 2.0**-1000)))
    return count
