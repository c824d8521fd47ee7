"""Run alone: a training on a `Stream` that an error or a signal ends.

KERAS_BACKEND=jax python tests/training/ending_run.py RECORDS RUN MOMENT

MOMENT is what happens: `loss:1` raises inside the first step, `error:10`
behind the tenth; `int:10` is Ctrl-C there and `term:10` a SIGTERM. The time of
it is printed.
"""

import os
import signal
import sys
import time

import keras
import resume_run

from keras_bridgetower.training.callbacks import Checkpoint


class Moment(keras.callbacks.Callback):
    """Lets something happen after a number of steps."""

    def __init__(self, kind, step):
        super().__init__()
        self.kind, self.left = kind, step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            happen(self.kind)


class FailingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        happen("error")


def happen(kind):
    print(time.time(), flush=True)
    if kind == "error":
        raise RuntimeError("the step failed")
    os.kill(os.getpid(), getattr(signal, f"SIG{kind.upper()}"))


def run(records, directory, moment):
    kind, step = moment.split(":")
    stream, made = resume_run.of_records(records)
    if kind == "loss":
        made.compile("sgd", {name: FailingLoss() for name in made.output})
    Checkpoint(directory, stream).fit(
        made, 100, callbacks=[Moment(kind, int(step))], verbose=0
    )


if __name__ == "__main__":
    run(*sys.argv[1:])
