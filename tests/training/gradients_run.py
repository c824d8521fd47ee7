"""Run alone: a small model in each of several processes of PyTorch.

torchrun --nproc-per-node=2 tests/training/gradients_run.py OUT

Each trains on its rows of every batch. The weights after each batch, and what
was accumulated in the middle of an update, are saved in OUT/INDEX.npz.
"""

import os
import pathlib
import sys

import keras
import numpy as np
import torch
from builders import array

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private import updates
from keras_bridgetower.training.optim.adamw import AdamW

BATCHES, ROWS = 12, 8
STEPS = 3
# In these batches a row of the last process has no finite gradient: within an
# update, and at its end without loss scaling, and with it.
BROKEN = [4, 8, 10]
# After this batch, a part of an update is accumulated.
MIDDLE = 7


def plain(**values):
    return keras.optimizers.SGD(0.1, global_clipnorm=0.3, **values)


OPTIMIZERS = {
    "sgd": plain,
    "accumulated": lambda: plain(
        use_ema=True, gradient_accumulation_steps=STEPS
    ),
    "adamw": lambda: AdamW(0.01, gradient_accumulation_steps=STEPS),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        plain(gradient_accumulation_steps=STEPS), initial_scale=64.0
    ),
}
FINITE = ("sgd", "accumulated")


def model(optimizer):
    layers = [keras.layers.Dense(n, activation="tanh") for n in (6, 1)]
    made = keras.Sequential([keras.Input((4,)), *layers])
    rng = np.random.default_rng(3)
    for weight in made.weights:
        weight.assign(rng.normal(size=weight.shape))
    made.compile(optimizer, "mse")
    return made


def batches(broken):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(BATCHES, ROWS, 4)).astype("float32")
    y = rng.normal(size=(BATCHES, ROWS, 1)).astype("float32")
    if broken:
        y[BROKEN, -1] = np.inf
    return zip(x, y, strict=True)


def trained(name, strategy=None):
    """Return what one process saw of a run; without a strategy, of all rows."""
    made = model(OPTIMIZERS[name]())
    if strategy:
        with strategy.scope():
            strategy.prepare(made)
        own = slice(strategy.index, None, strategy.processes)
    found = {}
    for number, (x, y) in enumerate(batches(name not in FINITE)):
        if strategy:
            x, y = x[own], y[own]
        made.train_on_batch(x, y)
        values = [array(w).ravel() for w in made.weights]
        found[f"{name}/weights/{number}"] = np.concatenate(values)
        if strategy and number == MIDDLE:
            strategy.share_accumulated(made.optimizer)
        if number == MIDDLE:
            kept = updates.accumulated(made.optimizer)
            for i, (_, variable) in enumerate(kept):
                found[f"{name}/kept/{i}"] = array(variable)
    return found


def messages(strategy):
    """Count the values that are sent for each batch of an update."""
    made = model(OPTIMIZERS["accumulated"]())
    with strategy.scope():
        strategy.prepare(made)
    sent = []
    for x, y in [*batches(False)][:STEPS]:
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(
            activities=activities, record_shapes=True
        ) as seen:
            made.train_on_batch(x, y)
        shapes = [
            shape
            for event in seen.events()
            if event.name == "c10d::allreduce_"
            or event.name == "gloo:all_reduce"
            for shape in event.input_shapes
        ]
        sent.append(sum(np.prod(s) for s in shapes if s))
    return sent


def main(folder):
    strategy = kbt.distribute("data_parallel")
    found = {}
    for name in OPTIMIZERS:
        found |= trained(name, strategy)
    found["messages"] = np.array(messages(strategy))
    strategy.gradient_dtype = "bfloat16"
    rounded = trained("sgd", strategy)
    found |= {f"bfloat16/{name}": value for name, value in rounded.items()}
    path = pathlib.Path(folder) / f"{os.environ['RANK']}.npz"
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
