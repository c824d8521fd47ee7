"""Run alone: what several processes of one run read, draw, save and refuse.

KERAS_BACKEND=torch KIND=data_parallel python tests/training/ranks_run.py \
    RECORDS FOLDER

Each process trains on captions, once in one go and once in two, and then
finds other checkpoints than its neighbours. What it saw is saved in
FOLDER/INDEX.npz and FOLDER/INDEX.json.
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
from builders import SIDE
from builders import array
from builders import tokenizer
from resume_run import with_dropout

import keras_bridgetower as kbt
from keras_bridgetower import objectives
from keras_bridgetower.data.augment import transform
from keras_bridgetower.data.pipeline import Stream
from keras_bridgetower.data.records import open_records
from keras_bridgetower.data.rows import Rows
from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.training import processes_jax
from keras_bridgetower.training.callbacks import Checkpoint
from keras_bridgetower.training.optimizers import AdamW

BATCH, STEPS, FIRST = int(os.environ.get("BATCH", "8")), 8, 3
LOCK, DECODED, DRAWN = threading.Lock(), [], {"mask": {}, "match": {}}


def watched(cls, name, keep):
    """Let a method of a class tell what it was given and what it gave."""
    own = getattr(cls, name)

    def told(self, *args):
        made = own(self, *args)
        with LOCK:
            return keep(made, *args)

    setattr(cls, name, told)


def keep_row(made, item, source, seed):
    # The seed ends with how often the sample was seen, and its number.
    DECODED.append(seed[1:])
    return made


def keep_masks(made, token_ids, padding_mask, seed):
    DRAWN["mask"][int(seed[1])] = made["mask_positions"]
    return made


def keep_matches(made, seed, ids):
    DRAWN["match"][int(seed[1])] = made[0]
    return made


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


def trained(strategy, records, folder, steps, seed=0):
    """The task, and its weights, after training until some step."""
    task = made(strategy, seed)
    checkpoint = Checkpoint(folder, stream(records), 2, strategy=strategy)
    checkpoint.fit(task, steps, verbose=0)
    with strategy.gathered(task):
        weights = [array(w) for w in task.weights]
    return task, weights


def dropped(task):
    """Whether units are kept, by layers of ours and of KerasHub."""
    ones = np.ones((1, 64, 16), "float32")
    layers = [
        layer
        for layer in task._flatten_layers()
        if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]
    found = [array(layer(ones, training=True)) for layer in layers]
    return np.stack(found) != 0


def refused(strategy, task, records, folder, seed=3):
    """How a process ends that sees this folder and has this seed."""
    checkpoint = Checkpoint(folder, stream(records, seed), 2, strategy=strategy)
    return caught(lambda: checkpoint.resume(task))


def caught(function):
    """The error of a function, and how long it took."""
    started = time.monotonic()
    try:
        function()
        error = ""
    except ValueError as raised:
        error = f"{type(raised).__name__}: {raised}"
    return [error, time.monotonic() - started]


def main(records, folder):
    folder = pathlib.Path(folder)
    strategy = kbt.distribute(os.environ["KIND"])
    index = strategy.index
    watched(Rows, "_row", keep_row)
    watched(TokenMasking, "__call__", keep_masks)
    watched(objectives.RandomNegatives, "draw", keep_matches)
    task, whole = trained(strategy, records, folder / "whole", STEPS)
    decoded = list(DECODED)
    drawn = {f"{k}/{n}": v for k, d in DRAWN.items() for n, v in d.items()}
    trained(strategy, records, folder / "part", FIRST)
    # Only what was saved may count from here on.
    _, parts = trained(strategy, records, folder / "part", STEPS, seed=99)
    steps = sorted((folder / "whole").glob("step-*"))
    own = folder / f"own {index}"
    faults = {}
    for name, seen in (
        ("absent", steps if index == 0 else []),
        ("older", steps if index == 0 else steps[:-1]),
        ("same", steps),
    ):
        for step in seen:
            shutil.copytree(step, own / name / step.name)
        faults[name] = refused(strategy, task, records, own / name)
    seed = 3 + (index == 1)
    faults["seed"] = refused(strategy, task, records, own / "none", seed)
    if index == 1:
        task.weights[0].assign(task.weights[0] + 1)
    faults["weights"] = refused(strategy, task, records, own / "none")
    jax = keras.config.backend() == "jax"
    if jax:
        random.seed(index)
        faults["start"] = caught(processes_jax.check_seeds)
    np.savez(
        folder / f"{index}.npz",
        **drawn,
        **{f"whole/{i}": w for i, w in enumerate(whole)},
        **{f"parts/{i}": w for i, w in enumerate(parts)},
        # On JAX a mask is one of the global batch.
        **({} if jax else {"dropped": dropped(task)}),
    )
    (folder / f"{index}.json").write_text(
        json.dumps({"decoded": decoded, "faults": faults})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
