"""What the loss of a first epoch says of labels that mean something else."""

import logging
import math

import keras

from keras_bridgetower.losses import VQALoss

_LOG = logging.getLogger(__name__)
# The loss of a head that gives every answer the same logit, 0.
_OF_NOTHING = {
    VQALoss: lambda answers: answers * math.log(2),
    keras.losses.SparseCategoricalCrossentropy: math.log,
}


def tell_if_worse_than_nothing(task, logs):
    """Tell of an epoch whose loss no head starts with, whatever it knows.

    Soft scores and ids do not say which answer they mean, so those of another
    list than the task's are found by their loss alone.

    Args:
        task: the task.
        logs: dict, what Keras logged of its first epoch.
    """
    kind, width = type(getattr(task, "loss", None)), task.label_widths()
    # Only where users list what the labels mean.
    if kind not in _OF_NOTHING or not task.label_arguments:
        return
    found, nothing = float(logs.get("loss", 0)), _OF_NOTHING[kind](width)
    if found > 1.5 * nothing:
        _LOG.warning(
            "The loss of the first epoch, %.1f, is far above the %.1f of a "
            "head that knows nothing. The columns of scores and the ids in "
            "`y` must be in the order of the task's own answers or labels; "
            "strings are found by their names.",
            found,
            nothing,
        )
