"""Run alone in a process: tasks that another backend saved take a step.

Each line of its input has the name of a task and a folder, in which the task
is `first.keras`. A line of output says that it is done.

KERAS_BACKEND=jax python tests/conformance/other_backend_run.py
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # noqa: F401, I001
import every_task
import keras
import numpy as np


def main():
    for line in sys.stdin:
        name, folder = line.split(maxsplit=1)
        take_step(name, pathlib.Path(folder.strip()))
        print("done", name, flush=True)


def take_step(name, folder):
    task = keras.saving.load_model(folder / "first.keras")
    np.savez(folder / "before.npz", **every_task.state(task))
    # To compile takes longer than a step.
    task.run_eagerly, task.jit_compile = True, False
    every_task.step(name, task)
    np.savez(folder / "after.npz", **every_task.state(task))
    task.save(folder / "second.keras")


if __name__ == "__main__":
    main()
