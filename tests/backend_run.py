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
from builders import array

import keras_bridgetower as kbt
from keras_bridgetower import analysis


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
    """Return outputs, loss and weights after one step of each task."""
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
}

if __name__ == "__main__":
    main(*sys.argv[1:])
