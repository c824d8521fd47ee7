"""Run alone in a process: the same steps on the backend of the environment.

KERAS_BACKEND=jax python tests/backend_run.py out.npz tasks
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # noqa: F401, I001
import keras
import every_task
import numpy as np
from builders import ANSWERS
from builders import array
from builders import backbone
from builders import clip
from builders import roberta

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import rows

STEPS, BATCH, TOKENS = 100, 8, 12


def main(destination, *parts):
    found = {}
    for part in parts:
        found |= PARTS[part]()
    if destination.endswith(".json"):
        lists = {name: value.tolist() for name, value in found.items()}
        with open(destination, "w") as file:
            file.write(json.dumps(lists) + "\n")
        return
    np.savez(destination, **found)


def a_step_of_each_task():
    """What each task gives, its loss, and its weights after one step."""
    found = {}
    for name, case in every_task.TASKS.items():
        task = every_task.make(name)
        same_start(task)
        x, y = every_task.raw(name), case.y
        if task.preprocessor.reads_step:
            x["step"] = 0
        outputs = task.predict_on_batch(x)
        jit_compile = keras.config.backend() == "jax"
        task.compile(
            keras.optimizers.SGD(0.1),
            run_eagerly=not jit_compile,
            jit_compile=jit_compile,
        )
        found[f"{name}/loss"] = task.train_on_batch(x, y)[0]
        # Each backend orders the entries of a dict in its own way.
        for path, output in keras.tree.flatten_with_path(outputs):
            found["/".join(map(str, (name, "output", *path)))] = output
        for weight in task.trainable_weights:
            found[f"{name}/weight/{weight.path}"] = array(weight)
    return found


def a_hundred_steps():
    found = {}
    for name, (optimizer, rate) in RUNS.items():
        losses, weights = steps_of(optimizer(rate, global_clipnorm=1.0))
        found[f"{name}/losses"] = losses
        found |= {f"{name}/weight/{path}": w for path, w in weights.items()}
    return found


def stock(rate, **kwargs):
    return keras.optimizers.AdamW(rate, weight_decay=0.01, **kwargs)


def in_rows(rate, **kwargs):
    return AdamW(rate, rows(fusion=5, head=50), epsilon=1e-6, **kwargs)


# Optimizer and rate. Rows multiply the rate, that of the recipes' miniature,
# by up to 50.
RUNS = {"stock": (stock, 1e-3), "rows": (in_rows, 2e-4)}


def steps_of(optimizer):
    """The losses of the steps, and the weights after the last."""
    # One layer of each kind is soon compiled.
    model = kbt.BridgeTowerVQA(
        backbone(
            clip(layers=1), roberta(layers=1, vocabulary=20), num_layers=1
        ),
        answers=ANSWERS,
    )
    same_start(model)
    model.compile(
        optimizer,
        # Uncompiled, JAX would take minutes; XLA on TensorFlow too.
        jit_compile=keras.config.backend() == "jax",
    )
    # Otherwise TensorFlow traces the first step twice, once to create these.
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(STEPS):
        # Few distinct tokens, so every batch repeats them many times.
        x = {
            "images": rng.normal(size=(BATCH, 32, 32, 3)).astype("float32"),
            "token_ids": rng.integers(2, 8, (BATCH, TOKENS)).astype("int32"),
            "padding_mask": np.ones((BATCH, TOKENS), "int32"),
        }
        y = rng.integers(0, 2, (BATCH, len(ANSWERS))).astype("float32")
        losses.append(float(model.train_on_batch(x, y)[0]))
    weights = {w.path: array(w) for w in model.trainable_weights}
    return np.array(losses), weights


def same_start(model):
    """Weights that no backend's own random numbers have a part in."""
    rng = np.random.default_rng(1)
    for weight in sorted(model.trainable_weights, key=lambda w: w.path):
        noise = rng.normal(size=weight.shape, scale=0.1)
        weight.assign(noise + weight.path.endswith("gamma"))


def tiny_preset():
    """Logits of the shipped preset, and how its heads differ."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    images[:, 10:30, 10:30] = (255, 0, 0)
    questions = ["what color is the shape?", "is there a circle?"] * 2
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    x = {"images": images, "text": questions}
    found = analysis.head_diversity(vqa, [x])
    diversity = np.array([[*found.mean.values()], [*found.spread.values()]])
    return {"preset": vqa.predict(x, verbose=0), "diversity": diversity}


PARTS = {
    "tasks": a_step_of_each_task,
    "preset": tiny_preset,
    "steps": a_hundred_steps,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
