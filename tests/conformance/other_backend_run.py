"""Run alone in a process: a task that another backend saved takes a step.

KERAS_BACKEND=jax python tests/conformance/other_backend_run.py vqa FOLDER
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # noqa: F401, I001
import every_task
import keras
import numpy as np


def main(name, folder):
    task = keras.saving.load_model(folder / "torch.keras")
    np.savez(folder / "before.npz", **every_task.state(task))
    # Uncompiled, JAX takes longer.
    task.run_eagerly, task.jit_compile = False, True
    every_task.step(name, task)
    np.savez(folder / "after.npz", **every_task.state(task))
    task.save(folder / "jax.keras")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
