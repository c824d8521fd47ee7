"""Run alone: passes of `fit` with split weights, after errors and changes.

torchrun --nproc-per-node=2 tests/training/fsdp_run.py OUT

What each process found is saved in OUT/INDEX.json.
"""

import json
import os
import pathlib
import sys

import keras
import numpy as np
from builders import ANSWERS
from builders import array
from builders import features
from builders import shallow

import keras_bridgetower as kbt

X, Y = features(batch=8), np.eye(4, dtype="float32")[np.arange(8) % 4]


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise OSError("no such picture")


def made(strategy, optimizer):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
        rng = np.random.default_rng(1)
        for weight in sorted(task.weights, key=lambda w: w.path):
            if str(weight.dtype) == "float32":
                weight.assign(array(weight) + rng.normal(size=weight.shape) / 9)
        task.compile(optimizer)
    return task


def fit(task, rows=8, **kwargs):
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
    """Return weights after `fit` with averages and a validation."""
    task = made(strategy, keras.optimizers.SGD(0.1, use_ema=True))
    fit(task, validation_data=(X, Y))
    return weights(task)


def after_an_error(strategy):
    """Return how weights differ from those of a run without the error."""
    task, other = (
        made(strategy, keras.optimizers.SGD(0.1, momentum=0.9)) for _ in "ab"
    )
    try:
        fit(task, callbacks=[Fails()])
    except OSError:
        fit(task)
    fit(other, rows=4)
    fit(other)
    return apart(weights(task), weights(other))


def frozen_and_not(strategy):
    """Return how much the image tower moved: frozen, and not any more."""
    task, moved = made(strategy, keras.optimizers.SGD(0.1)), []
    fit(task)
    for trainable in (False, True):
        task.backbone.image_tower.trainable = trainable
        with strategy.scope():
            task.compile(keras.optimizers.SGD(0.1))
        tower = task.backbone.image_tower
        before = weights(tower)
        fit(task)
        moved.append(apart(before, weights(tower)))
    return moved


def refused(strategy):
    task = made(strategy, keras.optimizers.SGD(0.1))
    fit(task)
    calls = {
        "callback": lambda: fit(
            task, callbacks=[keras.callbacks.ModelCheckpoint("x.keras")]
        ),
        "batch": lambda: task.train_on_batch(X, Y),
        "optimizer": lambda: made(strategy, keras.optimizers.Adafactor()),
    }
    return {name: message(call) for name, call in calls.items()}


def message(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{error}"
    return ""


def main(folder):
    strategy = kbt.distribute("fsdp")
    found = {
        "averages": [w.tolist() for w in averages(strategy)],
        "after an error": after_an_error(strategy),
        "moved": frozen_and_not(strategy),
        "refused": refused(strategy),
    }
    path = pathlib.Path(folder) / f"{os.environ['RANK']}.json"
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
