"""Steps that fail: a loss or gradients that are not finite."""

import math
import warnings

from keras_bridgetower.backend import keras_patches
from keras_bridgetower.training.runs.folders import CheckpointError


class Watch:
    """Tells which steps of a run failed, each once.

    Args:
        model: the compiled model, as it is before the first step.
        is_finite: bool, whether the loss that is logged was finite so far.

    Attributes:
        is_finite: bool, the same after the last step. What is logged is a
            mean over the epoch: once it is not finite, it stays so.
    """

    def __init__(self, model, is_finite=True):
        self._model = model
        self._refused = _refused(model)
        self.is_finite = is_finite

    def begin_epoch(self):
        """The mean of the loss begins anew."""
        self.is_finite = True

    def failure(self, loss):
        """What failed in the step that was just made.

        Args:
            loss: float, the mean that is logged.

        Returns:
            str, `""` where nothing did.
        """
        refused, was_refused = _refused(self._model), self._refused
        is_finite, was_finite = math.isfinite(loss), self.is_finite
        self._refused, self.is_finite = refused, is_finite
        if refused > was_refused:
            return "the gradients are not finite"
        return "the loss is not finite" if was_finite and not is_finite else ""


def text(failure, loss, position, ids):
    """What to say of a step whose loss or gradients are not finite.

    Args:
        failure: str, as `Watch.failure` returns it.
        loss: float.
        position: `Position` of the step.
        ids: ids of its samples.

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
    """A number that grows when gradients are refused as not finite."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    count = 0
    if hasattr(inner, "skipped"):
        count = int(keras_patches.optimizer_value(model, inner.skipped))
    if hasattr(optimizer, "dynamic_scale"):
        # Loss scaling lets scaled gradients overflow now and then, and
        # halves the scale: only below 1 the gradients themselves are at fault.
        scale = keras_patches.optimizer_value(model, optimizer.dynamic_scale)
        count += max(0, -math.log2(max(float(scale), 2.0**-1000)))
    return count
