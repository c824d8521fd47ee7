"""Run alone in a process: the same steps on the backend of the environment.

KERAS_BACKEND=jax python tests/backend_run.py out.npz
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch  # noqa: F401, I001
import keras
import numpy as np
from builders import ANSWERS
from builders import array
from builders import backbone
from builders import clip
from builders import roberta

import keras_bridgetower as kbt

STEPS, BATCH, TOKENS = 100, 8, 12


def main(destination):
    model = kbt.BridgeTowerVQA(
        backbone(clip(), roberta(vocabulary=20)), answers=ANSWERS
    )
    same_start(model)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01, global_clipnorm=1.0),
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
    results = {f"weight/{path}": w for path, w in weights.items()}
    results["losses"] = np.array(losses)
    results |= tiny_preset()
    np.savez(destination, **results)


def same_start(model):
    """Weights that no backend's own random numbers have a part in."""
    rng = np.random.default_rng(1)
    for weight in sorted(model.trainable_weights, key=lambda w: w.path):
        noise = rng.normal(size=weight.shape, scale=0.1)
        weight.assign(noise + weight.path.endswith("gamma"))


def tiny_preset():
    """Logits of the shipped preset."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    images[:, 10:30, 10:30] = (255, 0, 0)
    questions = ["what color is the shape?", "is there a circle?"] * 2
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    x = {"images": images, "text": questions}
    return {"preset": vqa.predict(x, verbose=0)}


if __name__ == "__main__":
    main(sys.argv[1])
