"""Run alone: a training on a `Stream` that an error or a signal ends.

KERAS_BACKEND=jax python tests/training/ending_run.py RECORDS RUN MOMENT

MOMENT is what happens: `loss:1` raises inside the first step, `error:10`
behind the tenth; `int:10` is Ctrl-C there and `term:10` a SIGTERM. In a loop
of one's own, without `fit`, `raise:3` raises behind the third batch, and
`hold:3` ends the script there, whose iterator is left. The time of it is
printed.
"""

import os
import signal
import sys
import time

import keras
import resume_run

from keras_bridgetower.training.runs.checkpoint import Checkpoint

# Objects that the script still has at its end.
HELD = []


class FailingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        happen("error")


def happen(kind):
    print(time.time(), flush=True)
    if kind == "hold":
        return
    if kind in ("error", "raise"):
        raise RuntimeError("the step failed")
    os.kill(os.getpid(), getattr(signal, f"SIG{kind.upper()}"))


def run(records, directory, moment):
    kind, step = moment.split(":")
    stream, built = resume_run.of_records(records)
    if kind in ("raise", "hold"):
        HELD.append(iter(stream.dataset()))
        for _ in range(int(step)):
            next(HELD[0])
        happen(kind)
        return
    if kind == "loss":
        built.compile("sgd", {name: FailingLoss() for name in built.output})
    call = resume_run.After(int(step), lambda: happen(kind))
    Checkpoint(directory, stream).fit(built, 100, callbacks=[call], verbose=0)


if __name__ == "__main__":
    run(*sys.argv[1:])
