"""Counts steps of training, shuffles rows, and warns of misordered labels."""

import logging
import math

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import devices
from keras_bridgetower.objectives.losses import VQALoss

_LOG = logging.getLogger(__name__)
# The loss of an untrained head, which gives every answer the logit 0.
_UNTRAINED = {
    VQALoss: lambda answers: answers * math.log(2),
    keras.losses.SparseCategoricalCrossentropy: math.log,
}


class Steps(keras.callbacks.Callback):
    """Tracks the number of training steps at the start of an epoch.

    Random draws for a step then depend on a seed and the step alone, so that
    a continued run draws as one that was never interrupted.

    Args:
        optimizer: the model's optimizer, which counts its steps; or None.

    Attributes:
        weighted: bool, whether rows have weights, and so the loss.
    """

    def __init__(self, optimizer):
        super().__init__()
        self.weighted = False
        self._optimizer = optimizer
        self._epochs = 0
        self.first = self._steps_taken()

    def on_epoch_end(self, epoch, logs=None):
        devices.current().check_order()
        self._epochs += 1
        if self._epochs == 1 and not self.weighted:
            warn_if_worse_than_untrained(self.model, (logs or {}))

    def on_epoch_begin(self, epoch, logs=None):
        # Not counted from batch to batch: a callback may have restored a run,
        # and the last of several steps in one execution may be missing.
        self.first = self._steps_taken()

    def _steps_taken(self):
        if self._optimizer is None:
            return 0
        # `iterations` are updates, each perhaps of several steps, and one may
        # have begun: "batches" counts those where `tf.distribute` accumulates.
        # An optimizer may hold another, with a count of its own.
        counts = [
            v
            for v in self._optimizer.variables
            if v.name in ("iteration", "batches")
        ]
        return max(int(ops.convert_to_numpy(count)) for count in counts)


class Shuffled:
    """Draws a new order of the rows in each epoch.

    Args:
        count: int, of the rows.
        steps: `Steps`.
    """

    def __init__(self, count, steps):
        self.count = count
        self.steps = steps
        # `keras.utils.set_random_seed` decides it, as all that Keras draws.
        seed = np.random.randint(2**31)
        # All processes of a run need one order, so they use that of the first.
        self.seed = int(devices.current().gather_text(str(seed))[0])

    def __call__(self):
        rng = np.random.default_rng([self.seed, self.steps.first])
        return rng.permutation(self.count).astype("int64")


def warn_if_worse_than_untrained(task, logs):
    """Warn if the first epoch's loss is far worse than that of no training.

    Soft scores and ids do not name their class. If they were made for another
    list than the task's, and came without names, only the loss shows it.

    Args:
        task: the task.
        logs: dict, what Keras logged of its first epoch.
    """
    kind = type(getattr(task, "loss", None))
    penalized = any(
        getattr(w, "regularizer", None) for w in task.trainable_variables
    )
    if kind not in _UNTRAINED or not task.class_names or penalized:
        return
    found = float(logs.get("loss", 0))
    start = _UNTRAINED[kind](len(task.class_names))
    if found > 1.5 * start:
        _LOG.warning(
            "The loss of the first epoch, %.1f, is far above the %.1f of a "
            "head that knows nothing. Either the learning rate is too high, or "
            "the ids or the columns of scores in `y` are not in the order of "
            "`task.class_names`. Strings in `y` are found by their names.",
            found,
            start,
        )
