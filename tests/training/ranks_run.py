"""Run alone: what several processes of one run read, draw, save and refuse.

KERAS_BACKEND=torch KIND=data_parallel python tests/training/ranks_run.py \
    WHAT RECORDS FOLDER

Each process trains on captions, once in one go and once from the middle of an
epoch on (WHAT is "trained"), also with split weights ("split"). Then it finds
other checkpoints than its neighbours, and reads other data. What it saw is
saved in FOLDER, in INDEX.npz and INDEX.json.
"""

import json
import os
import pathlib
import random
import shutil
import sys
import threading
import time

import keras
import numpy as np
from builders import ANSWERS
from builders import SIDE
from builders import array
from builders import features
from builders import one_layer_each
from builders import randomise
from builders import retrieval
from builders import shallow
from builders import tokenizer
from resume_run import with_dropout

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.samples import RowMaker
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.runs.checkpoint import Checkpoint

# Two epochs of the records, and a step in the second one.
RECORDS, BATCH, STEPS, FIRST = 24, 8, 6, 4
# Of datasets whose order is compared, and of arrays.
ROWS, SAMPLES = 32, 16
LOCK, DECODED, DRAWN = threading.Lock(), [], {"mask": {}, "match": {}}


def watched(cls, name, note):
    own = getattr(cls, name)

    def told(self, *args):
        made = own(self, *args)
        with LOCK:
            note(made, *args)
        return made

    setattr(cls, name, told)


def watch():
    # A seed ends with how often the sample was seen, and its number.
    watched(RowMaker, "_row", lambda _, *args: DECODED.append(args[-1][1:]))

    def note_masks(made, token_ids, padding_mask, seed):
        DRAWN["mask"][int(seed[1])] = made["mask_positions"]

    def note_matches(made, seed, ids):
        DRAWN["match"][int(seed[1])] = made[0]

    watched(TokenMasking, "__call__", note_masks)
    watched(pair_objectives.RandomNegatives, "draw", note_matches)


def stream(folder, seed=3):
    return Stream(
        open_records(folder, "train"),
        BATCH,
        transform("blip_randaug_pretrain", SIDE),
        seed=seed,
        remainder="drop",
        workers=1,
    )


def made(strategy, seed):
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        task = kbt.BridgeTowerPretraining(
            with_dropout(),
            kbt.BridgeTowerPretrainingPreprocessor(
                tokenizer(),
                kbt.BridgeTowerImageConverter(SIDE),
                objectives=("mlm", "itm"),
                max_masks=6,
            ),
            objectives=("mlm", "itm"),
        )
        jit = keras.config.backend() == "jax"
        task.compile(AdamW(1e-2), jit_compile=jit)
    return task


def dropped(task):
    ones = np.ones((1, 64, 16), "float32")
    layers = task._flatten_layers()
    dropouts = [x for x in layers if isinstance(x, keras.layers.Dropout)]
    found = [array(x(ones, training=True)) for x in dropouts if x.rate]
    return np.stack(found) != 0


def caught(function):
    started = time.monotonic()
    try:
        function()
        error = ""
    except (ValueError, RuntimeError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    return [error, time.monotonic() - started]


class Sizes(keras.callbacks.Callback):
    """Measures the memory of weights and of an optimizer between two steps."""

    def on_train_batch_end(self, batch, logs=None):
        weights = [w for w in self.model.weights if w.dtype == "float32"]
        size = sum(np.prod(w.shape) for w in weights)
        held = sum(w.value.untyped_storage().size() for w in weights) / 4
        slots = sum(np.prod(v.shape) for v in self.model.optimizer.variables)
        # AdamW has two.
        self.shares = [held / size, slots / (2 * size)]


def found(strategy, folder, steps, resume):
    first = strategy.index == 0
    seen = {"older": steps if first else steps[:-1], "same": steps}
    for name, folders in seen.items():
        for step in folders:
            shutil.copytree(step, folder / name / step.name)
    faults = {
        name: caught(lambda name=name: resume(folder / name, 3))
        for name in seen
    }
    seed = 3 + (strategy.index == 1)
    faults["seed"] = caught(lambda: resume(folder / "none", seed))
    if keras.config.backend() == "jax":
        random.seed(strategy.index)
        faults["start"] = caught(strategy.check_seeds)
    return faults


def asked(strategy):
    """Return the answers of verbs, with equal weights in all processes."""
    with strategy.scope():
        # One layer of each kind is soon compiled.
        task = retrieval(**one_layer_each())
        task.compile()
    rng = np.random.default_rng(2)
    for weight in sorted(task.weights, key=lambda w: w.path):
        if str(weight.dtype) == "float32":
            noise = rng.normal(size=weight.shape, scale=0.3)
            weight.assign(noise + weight.path.endswith("gamma"))
    pictures = rng.integers(0, 256, (3, 40, 40, 3)).astype("uint8")
    texts = ["it rained", "the sun shone all day"]
    return {
        "score": task.score(list(pictures[:2]), texts),
        "rank": task.rank(list(pictures), texts),
    }


def trained(strategy, records, folder, split=False):
    """Two epochs, and most of the second one once more."""

    def weights(folder, seed=0):
        task = made(strategy, seed)
        checkpoint = Checkpoint(folder, stream(records), 2, strategy=strategy)
        given = [Sizes()] if split else []
        checkpoint.fit(task, STEPS, given, verbose=0)
        if given:
            saved["shares"] = np.array(given[0].shares)
        with strategy.gathered(task):
            return task, [array(w) for w in task.weights]

    saved = {}
    task, whole = weights(folder / "whole")
    saved |= {f"whole/{i}": w for i, w in enumerate(whole)}
    for kind, steps in DRAWN.items():
        saved |= {f"{kind}/{step}": values for step, values in steps.items()}
    steps = sorted((folder / "whole").glob("step-*"))
    decoded = list(DECODED)
    middle = f"step-{FIRST:09d}"
    strategy.by_chief(
        lambda: shutil.copytree(
            folder / "whole" / middle, folder / "part" / middle
        )
    )
    # Only what was saved may count from here on.
    _, part = weights(folder / "part", seed=99)
    DECODED[:] = decoded
    saved |= {f"part/{i}": w for i, w in enumerate(part)}
    if keras.config.backend() != "jax":
        # There a mask is one of the global batch.
        saved["dropped"] = dropped(task)

    def resume(folder, seed):
        own = stream(records, seed)
        Checkpoint(folder, own, 2, strategy=strategy).resume(task)

    own = folder / f"own {strategy.index}"
    # They do not depend on where the weights are.
    faults = {} if split else found(strategy, own, steps, resume)
    if strategy.index == 1:
        task.weights[0].assign(task.weights[0] + 1)
    faults["weights"] = caught(lambda: resume(own / "none", 3))
    return saved, faults


def orders(strategy):
    import tensorflow as tf

    index = strategy.index
    rows = tf.data.Dataset.range(ROWS).map(lambda i: {"id": i})

    def noisy(row):
        return {**row, "noise": tf.random.uniform((3,), seed=index)}

    given = {
        "in order": rows,
        # Keras gives labels of None beside weights.
        "no labels": rows.map(lambda row: (row, None, row["id"])),
        "seed": rows.shuffle(32, seed=7),
        "augmented": rows.shuffle(32, seed=7).map(noisy, 2),
        "noise alone": rows.map(lambda row: {"noise": noisy(row)["noise"]}),
        "other length": rows.take(32 - 4 * index),
        "later": rows.take(20).concatenate(rows.skip(20).shuffle(12, index)),
    }
    # Keras gives all processes of JAX one seed.
    tf.random.set_seed(index)
    given["no seed"] = rows.shuffle(32)
    return {name: read_twice(strategy, data) for name, data in given.items()}


def read_twice(strategy, rows):
    try:
        data = strategy.dataset(rows.batch(4, drop_remainder=True))
        found = [ids_of(strategy, data) for _ in range(2)]
        strategy.check_order()
    except ValueError as error:
        return f"{error}"
    return found


def ids_of(strategy, dataset):
    dataset = dataset.map(lambda *batch: batch[0]["id"])
    if keras.config.backend() != "tensorflow":
        return [int(i) for ids in dataset for i in ids]
    return [
        int(i)
        for ids in strategy.distributed(dataset)
        for part in strategy.engine.experimental_local_results(ids)
        for i in part
    ]


class Seen(keras.metrics.Metric):
    """`1000 * most + sum` of the numbers of times that rows were seen."""

    def __init__(self):
        super().__init__(name="seen")
        self.counts = self.add_variable((SAMPLES,), "zeros", name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        rows = keras.ops.cast(y_true[:, 0] * SAMPLES, "int32")
        counts = keras.ops.sum(keras.ops.one_hot(rows, SAMPLES), axis=0)
        self.counts.assign(self.counts + counts)

    def result(self):
        return 1000 * keras.ops.max(self.counts) + keras.ops.sum(self.counts)


def plain(strategy):
    import tensorflow as tf

    # On JAX, `faults` has left another random state in each process.
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
        jit = keras.config.backend() == "jax"
        task.compile("sgd", metrics=[Seen()], jit_compile=jit)
    x = features(task.backbone, batch=SAMPLES)
    y = np.zeros((SAMPLES, len(ANSWERS)), "float32")
    y[:, 0] = np.arange(SAMPLES) / SAMPLES
    data = tf.data.Dataset.from_tensor_slices((x, y))
    batches = data.batch(8, drop_remainder=True)
    # JAX needs as many rows as all devices divide.
    rest = keras.config.backend() != "jax"
    some = {name: value[: SAMPLES - 5 * rest] for name, value in x.items()}
    own = slice(None, None, 1 - 2 * strategy.index)
    batch = {name: value[:8] for name, value in x.items()}, y[:8]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch

    # The order of rows is drawn from NumPy's generator.
    np.random.seed(strategy.index)

    def fit(*args, **kwargs):
        return task.fit(*args, verbose=0, **kwargs).history

    def validated():
        history = fit(x, y, 8, shuffle=False, validation_data=(x, y))
        return history["seen"] + history["val_seen"]

    def evaluate(*args):
        return task.evaluate(*args, 8, verbose=0, return_dict=True)

    runs = {
        "fit arrays": lambda: fit(x, y, 8, 2)["seen"],
        "fit a dataset": lambda: fit(batches)["seen"],
        "fit a divided dataset": lambda: fit(strategy.dataset(batches))["seen"],
        "validate": validated,
        "evaluate": lambda: [evaluate(some, y[: len(some["images"])])["seen"]],
        "fit rows of its own": lambda: fit(
            {name: value[own] for name, value in x.items()}, y[own], 8
        ),
        "fit a generator": lambda: fit(iter([batch])),
        "predict a PyDataset": lambda: task.predict(Batches(), verbose=0),
        "fit another number of rows": lambda: fit(x, y, 12),
    }
    found = {name: caught_or_made(run) for name, run in runs.items()}
    # Batches of another size are divided at other rows.
    one, other = (task.predict(some, size, verbose=0) for size in (8, 16))
    found["predicted"] = [len(one), float(np.abs(one - other).max())]
    return found


def caught_or_made(run):
    try:
        return [float(value) for value in run()]
    except ValueError as error:
        return f"{error}"


X, Y = features(batch=8), np.eye(4, dtype="float32")[np.arange(8) % 4]


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise OSError("no such picture")


def answering(strategy, cls=keras.optimizers.SGD, **values):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
        randomise(task, scale=0.1)
        optimizer = cls(0.1, **values)
        if cls is keras.optimizers.SGD:
            optimizer.exclude_from_weight_decay(task.trainable_variables[::2])
        task.compile(optimizer)
    return task


def fit(task, rows=4, **kwargs):
    x = {name: value[:rows] for name, value in X.items()}
    given = dict(batch_size=4, shuffle=False, verbose=0)
    task.fit(x, Y[:rows], **given, **kwargs)


def copied(task):
    return [array(w).copy() for w in task.weights]


def apart(one, other):
    return max(
        float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)
    )


def averages(strategy):
    """Return weights after `fit` with averages, decay and a validation.

    Those of Keras' SGD, then of our AdamW, which accumulates.
    """
    found, ours = [], {"cls": AdamW, "epsilon": 0.1}
    for values in ({}, ours | {"gradient_accumulation_steps": 2}):
        task = answering(strategy, use_ema=True, weight_decay=0.3, **values)
        fit(task, rows=8, validation_data=(X, Y))
        found += copied(task)
    return found


def after_an_error(strategy):
    """Return a task, and how it differs from one without the error."""
    task, other = (answering(strategy, momentum=0.9) for _ in "ab")
    try:
        fit(task, callbacks=[Fails()])
    except OSError:
        fit(task)
    fit(other, epochs=2)
    return task, apart(copied(task), copied(other))


def frozen_and_not(strategy, task):
    """Return how much the image tower moved: frozen, and not any more."""
    tower, moved = task.backbone.image_tower, []
    for trainable in (False, True):
        tower.trainable = trainable
        with strategy.scope():
            task.compile(keras.optimizers.SGD(0.1))
        before = copied(tower)
        fit(task)
        moved.append(apart(before, copied(tower)))
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
    return {name: caught(call)[0] for name, call in calls.items()}


def passes(strategy):
    """Passes of `fit` with split weights, after errors and changes."""
    values = [w.tolist() for w in averages(strategy)]
    task, difference = after_an_error(strategy)
    return {
        "averages": values,
        "after an error": difference,
        "moved": frozen_and_not(strategy, task),
        "refused": refused(strategy, task),
    }


def main(what, records, folder):
    folder, kind = pathlib.Path(folder), os.environ["KIND"]
    kbt.distribute(kind)
    # Processes that are connected may call it again.
    strategy = kbt.distribute(kind)
    watch()
    saved, faults = trained(strategy, records, folder, what == "split")
    if what == "split":
        facts = {"passes": passes(strategy)}
    else:
        other = stream(records, seed=3 + (strategy.index == 1))
        faults["stream"] = caught(lambda: strategy.batches(other))
        facts = {"orders": orders(strategy), "plain": plain(strategy)}
    if keras.config.backend() == "jax" and kind == "multi_worker":
        # The other engines compute it in each process alone.
        saved |= asked(strategy)
    np.savez(folder / f"{strategy.index}.npz", **saved)
    facts |= {"decoded": DECODED, "faults": faults}
    (folder / f"{strategy.index}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
