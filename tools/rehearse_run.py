"""Run one host of a rehearsal, and record its batches.

`rehearse.py` starts `rehearse_run.py STORY DIES_AT ARGUMENT ...`.
"""

import json
import os
import signal
import sys
import zlib

import keras
import miniature_run
import numpy as np

from keras_bridgetower.data.stream.samples import RowMaker
from keras_bridgetower.training import train


class Story(keras.callbacks.Callback):
    """Record the loss, rate and weights of each batch."""

    def __init__(self, path, checkpoint, dies_at):
        super().__init__()
        self._file = open(path, "a", buffering=1)
        self._checkpoint = checkpoint
        self._dies_at = dies_at

    def write(self, **facts):
        self._file.write(json.dumps(facts) + "\n")

    def on_train_begin(self, logs=None):
        (mean,) = (m for m in self.model.metrics if m.name == "loss")
        self._mean, update = mean, mean.update_state

        def of_this_batch(values, sample_weight=None):
            mean.reset_state()
            return update(values, sample_weight)

        # A mean over the epoch would hide where two runs part.
        mean.update_state = of_this_batch

    def on_train_end(self, logs=None):
        del self._mean.update_state

    def on_train_batch_begin(self, batch, logs=None):
        place = self._checkpoint.position
        length = self._checkpoint.stream.steps_per_epoch
        self._batch = place.epoch * length + place.step
        if self._batch == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._rate = float(array(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        values = [*map(array, self.model.trainable_variables)]
        total = 0
        for value in values:
            total = zlib.crc32(np.ascontiguousarray(value), total)
        self.write(
            batch=self._batch,
            loss=float(logs["loss"]),
            rate=self._rate,
            weights=f"{total:08x}",
            sum=float(sum(value.sum(dtype="float64") for value in values)),
        )


array = keras.ops.convert_to_numpy


def follow(rows):
    """Patch `RowMaker` to note the training samples that it reads.

    They are pairs of epoch and sample.
    """
    readable_rows = RowMaker.readable_rows

    def noted(self, samples, passes):
        if self.readers[0].split == "train":
            rows.extend(zip(passes.tolist(), samples.tolist(), strict=True))
        return readable_rows(self, samples, passes)

    RowMaker.readable_rows = noted


def run(path, dies_at, *given):
    """Run the host; `path.out` and `path.err` get what it prints."""
    for name, handle in (("out", 1), ("err", 2)):
        with open(f"{path}.{name}", "w") as file:
            os.dup2(file.fileno(), handle)
    rows, stories = [], []
    follow(rows)

    def beside(checkpoint):
        stories.append(Story(path, checkpoint, int(dies_at)))
        return stories

    miniature_run.main(__doc__, train.recipe_names(), given, beside)
    stories[0].write(read=rows)


if __name__ == "__main__":
    run(*sys.argv[1:])
