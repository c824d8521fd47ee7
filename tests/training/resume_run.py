"""Runs a training that may be killed, and continues when run again.

KERAS_BACKEND=jax python tests/training/resume_run.py DIRECTORY OUT.npz [MOMENT]

MOMENT says when the process kills itself: `save:3` at the third time that a
file is synchronised, which is inside a save, `upload:3` before its third upload
to a store, `kill:5` before step 5, `kill_later:5` a second after step 5 began;
`term:5` sends SIGTERM at step 5, and `hang:5` hangs there; `linger:5` waits 5
seconds after the end. The environment's KIND is one of `kbt.distribute`; BATCH
is the batch size.

KERAS_BACKEND=jax python tests/training/resume_run.py RECORDS RUN MOMENT ends

trains on a `Stream` until an error or a signal ends it: `loss:1` raises inside
the first step, `error:10` behind the tenth; `int:10` is Ctrl-C there and
`term:10` a SIGTERM. In a loop of one's own, without `fit`, `raise:3` raises
behind the third batch, and `hold:3` ends the script there, whose iterator is
left. The time of it is printed.
"""

import os
import signal
import sys
import threading
import time

import keras
import numpy as np
import tensorflow as tf
from builders import SIDE
from builders import array
from builders import backbone
from builders import clip
from builders import features
from builders import roberta
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.object_stores import Store
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.runs import places
from keras_bridgetower.training.runs.checkpoint import Checkpoint

ROWS, STEPS, EVERY = 24, 10, 2
BATCH = int(os.environ.get("BATCH", "4"))


class Rows:
    """A stream over rows in memory, shuffled differently in each epoch."""

    def __init__(self, steps=ROWS // BATCH):
        self.steps_per_epoch = steps
        self.x = features(batch=ROWS)
        self.y = np.random.default_rng(0).uniform(size=(ROWS, 2))

    def rows(self, number):
        epoch, step = divmod(int(number), self.steps_per_epoch)
        order = np.random.default_rng([7, epoch]).permutation(ROWS)
        return order[step * BATCH : (step + 1) * BATCH]

    def ids(self, number):
        return [f"row {row}" for row in self.rows(number)]

    def batch(self, number):
        rows = self.rows(number)
        return {k: v[rows] for k, v in self.x.items()}, self.y[rows]

    def dataset(self, start=(0, 0), epochs=None):
        first = start[0] * self.steps_per_epoch + start[1]
        numbers = tf.data.Dataset.counter(first)
        if epochs is not None:
            last = epochs * self.steps_per_epoch
            numbers = tf.data.Dataset.range(first, last)
        return numbers.map(self._in_graph)

    def _in_graph(self, number):
        rows = tf.numpy_function(self.rows, [number], tf.int64)
        rows.set_shape((BATCH,))
        x = {k: tf.gather(v, rows) for k, v in self.x.items()}
        return x, tf.gather(self.y, rows)


def interrupt():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    if keras.distribution.distribution():
        time.sleep(2)  # Processes of JAX look for the signal once a second.


class After(keras.callbacks.Callback):
    """Calls a function after some batches."""

    def __init__(self, batches, function=interrupt):
        super().__init__()
        self.left, self.function = batches, function

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.function()


class Moment(keras.callbacks.Callback):
    """Ends the process at a moment."""

    def __init__(self, moment):
        super().__init__()
        self.kind, _, self.value = (moment or "never:0").partition(":")
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.steps += 1
        if self.kind in AT_STEP and self.steps == int(self.value):
            AT_STEP[self.kind]()


def end():
    os.kill(os.getpid(), signal.SIGKILL)


AT_STEP = {
    "term": terminate,
    "kill": end,
    "kill_later": lambda: threading.Timer(1, end).start(),
    "hang": lambda: time.sleep(3600),
}


def end_inside_a_save(count):
    synchronize, left = os.fsync, [count]

    def counted(handle):
        left[0] -= 1
        if not left[0]:
            end()
        synchronize(handle)

    os.fsync = counted


def end_inside_an_upload(count):
    upload, left = Store.write, [count]

    def counted(store, name, content):
        # A probe and manifests have no file.
        left[0] -= not isinstance(content, bytes)
        if not left[0]:
            end()
        upload(store, name, content)

    Store.write = counted


def task(optimizer=None, **kwargs):
    """Return a compiled task for features in memory."""
    keras.utils.set_random_seed(0)
    built = kbt.BridgeTowerVQA(with_dropout(), answers=["yes", "no"])
    return compiled(built, optimizer, **kwargs)


def of_records(folder):
    """Return a stream of augmented captions, and a task that masks them."""
    stream = Stream(
        open_records(folder, "train"),
        BATCH,
        transform("blip_randaug_pretrain", SIDE),
        seed=3,
        remainder="drop",
    )
    keras.utils.set_random_seed(0)
    preprocessor = kbt.BridgeTowerPretrainingPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), max_masks=6
    )
    built = kbt.BridgeTowerPretraining(
        with_dropout(), preprocessor, projection_dim=8
    )
    return stream, compiled(built)


def with_dropout():
    return backbone(
        clip(layers=1),
        roberta(layers=1, dropout=0.2),
        num_layers=1,
        dropout=0.2,
    )


def compiled(built, optimizer=None, **kwargs):
    optimizer = optimizer or AdamW(1e-2, global_clipnorm=1.0)
    kwargs["jit_compile"] = keras.config.backend() == "jax"
    built.compile(optimizer, **kwargs)
    return built


def run(directory, out, moment=None):
    strategy = kbt.distribute(os.environ.get("KIND", "none"))
    with strategy.scope():
        stream, built = Rows(), task()
    checkpoint = Checkpoint(
        directory, stream, EVERY, settings={"rows": ROWS}, strategy=strategy
    )
    if moment and moment.startswith("save:"):
        end_inside_a_save(int(moment.removeprefix("save:")))
    if moment and moment.startswith("upload:"):
        end_inside_an_upload(int(moment.removeprefix("upload:")))
    saved = places.open_place(directory).names()
    if saved:
        # From here on only saved states may matter.
        keras.utils.set_random_seed(os.getpid())
    history = checkpoint.fit(
        built, STEPS, callbacks=[Moment(moment)], verbose=0
    )
    # A run that was killed after its last save has no history left.
    assert bool(history.history) == (f"step-{STEPS:09d}" not in saved)
    owners = {"model": built, "optimizer": built.optimizer}
    with strategy.gathered(built):
        found = {
            f"{part}/{i}": array(v)
            for part, owner in owners.items()
            for i, v in enumerate(owner.variables)
        }
    # The metrics of the last epoch, which continued as well.
    found |= {k: np.array(v[-1]) for k, v in history.history.items()}
    np.savez(str(out).format(strategy.index), **found)
    if moment and moment.startswith("linger:"):
        time.sleep(float(moment.removeprefix("linger:")))


# Objects that the script still has at its end.
HELD = []


class FailingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        happen("error")


def happen(kind):
    print(time.time(), flush=True)
    if kind in ("error", "raise"):
        raise RuntimeError("the step failed")
    if kind != "hold":
        os.kill(os.getpid(), getattr(signal, f"SIG{kind.upper()}"))


def run_that_ends(records, directory, moment):
    kind, step = moment.split(":")
    stream, built = of_records(records)
    if kind in ("raise", "hold"):
        HELD.append(iter(stream.dataset()))
        for _ in range(int(step)):
            next(HELD[0])
        happen(kind)
        return
    if kind == "loss":
        built.compile("sgd", {name: FailingLoss() for name in built.output})
    call = After(int(step), lambda: happen(kind))
    Checkpoint(directory, stream).fit(built, 100, callbacks=[call], verbose=0)


def check_equal(folder, count, exact=False):
    """Compare what `count` processes saved of the runs "whole" and "part"."""
    for index in range(count):
        one, other = (
            np.load(folder / f"{name}{index}.npz") for name in ("whole", "part")
        )
        assert set(one) == set(other)
        for name in one:
            # The metrics' sums over processes are taken in another order.
            rtol = 0 if "/" in name or exact else 1e-6
            np.testing.assert_allclose(one[name], other[name], rtol, 0, name)


if __name__ == "__main__":
    several = os.environ.get("KIND") == "data_parallel"
    if keras.config.backend() == "tensorflow" and several:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    if sys.argv[-1] == "ends":
        run_that_ends(*sys.argv[1:-1])
    else:
        run(*sys.argv[1:])
