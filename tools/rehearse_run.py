"""Run the hosts of a rehearsal as processes, and record their batches.

`rehearse.py` starts it. On PyTorch it imports everything once and forks a
process for each host of each run, as imports would take most of the time.
Nothing may run on a device before. TensorFlow and JAX do not support forks (on
a busy machine TensorFlow's products overwrote other memory), so each host
imports them itself.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zlib

import keras
import miniature_run
import numpy as np

from keras_bridgetower.data.stream.samples import RowMaker
from keras_bridgetower.training import train


class Story(keras.callbacks.Callback):
    """Record the loss, rate and weights of each batch.

    Args:
        path: path of the file.
        checkpoint: the run's `Checkpoint`, which knows the batch.
        dies_at: int, the batch before which the process kills itself.
    """

    def __init__(self, path, checkpoint, dies_at):
        super().__init__()
        self._file = open(path, "a", buffering=1)
        self._checkpoint = checkpoint
        self._dies_at = dies_at

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
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self._rate = float(rate)

    def on_train_batch_end(self, batch, logs=None):
        values = [
            keras.ops.convert_to_numpy(v)
            for v in self.model.trainable_variables
        ]
        total = 0
        for value in values:
            content = np.ascontiguousarray(value).reshape(-1).view("uint8")
            total = zlib.crc32(content, total)
        self._write(
            batch=self._batch,
            loss=float(logs["loss"]),
            rate=self._rate,
            weights=f"{total:08x}",
            sum=float(sum(value.sum(dtype="float64") for value in values)),
        )

    def read(self, rows):
        """Record the rows that were read, as pairs of epoch and sample."""
        length = self._checkpoint.stream.steps_per_epoch
        self._write(read=rows, length=length)

    def _write(self, **facts):
        self._file.write(json.dumps(facts) + "\n")


def followed(rows):
    """Patch `RowMaker` to record the training samples that it reads."""
    readable_rows = RowMaker.readable_rows

    def noted(self, samples, passes):
        if self.readers[0].split == "train":
            rows.extend(zip(passes.tolist(), samples.tolist(), strict=True))
        return readable_rows(self, samples, passes)

    RowMaker.readable_rows = noted


FORKS = keras.config.backend() == "torch"
# Seconds in which all hosts must have ended after one of them, and for a run.
SOON, LONG = 60, 1800
# Seconds in which the others must have ended after one was killed.
LOST = 10 if FORKS else SOON


def run(path, dies_at, given):
    """Run one host."""
    read, stories = [], []
    followed(read)

    def beside(checkpoint):
        stories.append(Story(path, checkpoint, dies_at))
        return stories

    miniature_run.main(__doc__, train.recipe_names(), given, beside)
    stories[0].read(read)


def host_of(orders):
    """Start the hosts of each order, and print how each ended."""
    # Kept, as they would take the exit code of their process with them.
    processes = []
    for line in orders:
        order, pids = json.loads(line), []
        for host in order["hosts"]:
            if FORKS:
                pids.append(os.fork())
                if not pids[-1]:
                    return host
            else:
                command = [sys.executable, __file__, json.dumps(host)]
                processes.append(subprocess.Popen(command))
                pids.append(processes[-1].pid)
        print(json.dumps(ended(pids, order["soon"])), flush=True)
    return None


def ended(pids, soon):
    """Wait for hosts, and kill those that do not end; return code and delay."""
    began, codes, ends = time.monotonic(), {}, {}
    while len(ends) < len(pids):
        time.sleep(0.05)
        now = time.monotonic()
        for pid in set(pids) - set(ends):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
                ends[pid] = now
        first = min(ends.values(), default=now)
        waits = soon or any(codes.values())
        if now > began + LONG or (waits and now > first + SOON):
            for pid in set(pids) - set(ends):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            break
    first = min(ends.values(), default=began)
    return [
        (codes[pid], ends[pid] - first) if pid in ends else (None, None)
        for pid in pids
    ]


def become(host):
    """Redirect the output and set the environment of a host."""
    for name, handle in (("out", 1), ("err", 2)):
        with open(f"{host['path']}.{name}", "w") as file:
            os.dup2(file.fileno(), handle)
    os.environ.update(host["environment"])


if __name__ == "__main__":
    host = json.loads(sys.argv[1]) if sys.argv[1:] else host_of(sys.stdin)
    if host is not None:
        become(host)
        run(host["path"], host["dies_at"], host["given"])
