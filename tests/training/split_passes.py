"""Passes of `fit` with split weights, after errors and changes."""

import keras
import numpy as np
from builders import ANSWERS
from builders import array
from builders import features
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.training.optim.adamw import AdamW

X, Y = features(batch=8), np.eye(4, dtype="float32")[np.arange(8) % 4]
REFUSED = {
    "callback": "use a `Checkpoint`.*Received: ModelCheckpoint",
    "batch": "call it in place of `train_on_batch`",
    "optimizer": "needs one of the optimizers.*Received: Adafactor",
    "activations": "must be called before the first `fit`",
}


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise OSError("no such picture")


def made(strategy, cls=keras.optimizers.SGD, **values):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
        rng = np.random.default_rng(1)
        for weight in sorted(task.weights, key=lambda w: w.path):
            if str(weight.dtype) == "float32":
                weight.assign(array(weight) + rng.normal(size=weight.shape) / 9)
        optimizer = cls(0.1, **values)
        if cls is keras.optimizers.SGD:
            optimizer.exclude_from_weight_decay(task.trainable_variables[::2])
        task.compile(optimizer)
    return task


def fit(task, rows=4, **kwargs):
    x = {name: value[:rows] for name, value in X.items()}
    given = dict(batch_size=4, shuffle=False, verbose=0)
    task.fit(x, Y[:rows], **given, **kwargs)


def weights(task):
    return [array(w).copy() for w in task.weights]


def apart(one, other):
    return max(
        float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)
    )


def averages(strategy):
    """Return weights after `fit` with averages, decay and a validation.

    Those of Keras' SGD, then of our AdamW, then of the same that accumulates.
    """
    found, ours = [], {"cls": AdamW, "epsilon": 0.1}
    for values in ({}, ours, ours | {"gradient_accumulation_steps": 2}):
        task = made(strategy, use_ema=True, weight_decay=0.3, **values)
        fit(task, rows=8, validation_data=(X, Y))
        found += weights(task)
    return found


def after_an_error(strategy):
    """Return a task, and how it differs from one without the error."""
    task, other = (made(strategy, momentum=0.9) for _ in "ab")
    try:
        fit(task, callbacks=[Fails()])
    except OSError:
        fit(task)
    fit(other)
    fit(other)
    return task, apart(weights(task), weights(other))


def frozen_and_not(strategy, task):
    """Return how much the image tower moved: frozen, and not any more."""
    tower, moved = task.backbone.image_tower, []
    for trainable in (False, True):
        tower.trainable = trainable
        with strategy.scope():
            task.compile(keras.optimizers.SGD(0.1))
        before = weights(tower)
        fit(task)
        moved.append(apart(before, weights(tower)))
    return moved


def refused(strategy, task):
    def compiled():
        with strategy.scope():
            task.compile(keras.optimizers.Adafactor())
        fit(task)

    saves = [keras.callbacks.ModelCheckpoint("x.keras")]
    calls = {
        "callback": lambda: fit(task, callbacks=saves),
        "batch": lambda: task.train_on_batch(X, Y),
        "optimizer": compiled,
        "activations": task.backbone.checkpoint_activations,
    }
    return {name: message(call) for name, call in calls.items()}


def message(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{error}"
    return ""


def found(strategy):
    """Return what a process of `ranks_run.py` saves."""
    values = [w.tolist() for w in averages(strategy)]
    task, difference = after_an_error(strategy)
    return {
        "averages": values,
        "after an error": difference,
        "moved": frozen_and_not(strategy, task),
        "refused": refused(strategy, task),
    }
