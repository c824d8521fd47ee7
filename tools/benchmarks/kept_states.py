"""Time training on kept states beside training with frozen towers.

    python tools/benchmarks/kept_states.py bridgetower_small_photo_retrieval
    python tools/benchmarks/kept_states.py FOLDER --tokens 96 --pairs 16

Prints CPU milliseconds of a pair in `fit` in one thread, their ratio, the bytes
of a picture, and how much the losses of the last epoch differ.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "torch")
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_bridgetower as kbt  # noqa: E402


def opened(preset, tokens):
    """Return a task whose towers are frozen."""
    task = kbt.BridgeTowerRetrieval.from_preset(
        preset,
        objective="random_negatives",
        image_tokens=tokens,
        random_heads=True,
    )
    task.backbone.image_tower.trainable = False
    task.backbone.text_tower.trainable = False
    task.compile(keras.optimizers.AdamW(1e-4))
    return task


def seconds(task, x, y, batch_size, epochs=2):
    """Return CPU seconds of a pair, once compiled, and the last loss."""
    keras.utils.set_random_seed(0)
    given = dict(batch_size=batch_size, shuffle=False, verbose=0)
    task.fit(x, y, **given)
    started = time.process_time()
    losses = task.fit(x, y, epochs=epochs, **given).history["loss"]
    taken = time.process_time() - started
    return taken / (epochs * len(y["match"])), losses[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--tokens", type=int, help="merged tokens")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    settings = parser.parse_args()
    rng = np.random.default_rng(0)
    count, size = settings.pairs, settings.batch_size
    pictures = list(rng.integers(0, 256, (count, 320, 320, 3), dtype="uint8"))
    texts = [f"a photograph of a cat, number {i}" for i in range(count)]
    y = {"match": rng.integers(0, 2, count)}
    plain, task = (opened(settings.preset, settings.tokens) for _ in range(2))
    task.set_weights(plain.get_weights())
    whole, wanted = seconds(plain, {"images": pictures, "text": texts}, y, size)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        images = task.keep_states(f"{folder}/i", images=pictures, verbose=0)
        kept = (time.process_time() - started) / count
        told = task.keep_states(f"{folder}/t", texts=texts, verbose=0)
        fast, found = seconds(task, {"images": images, "text": told}, y, size)
        tokens, width = images.identity["shape"]
    print(
        f"{settings.preset}: with towers {1e3 * whole:.1f} ms a pair, from "
        f"states {1e3 * fast:.1f} ms, ratio {whole / fast:.2f}; keeping "
        f"{1e3 * kept:.0f} ms a picture; bytes a picture float32 "
        f"{4 * tokens * width:,}, float16 {2 * tokens * width:,}, int8 about "
        f"{tokens * width:,}; losses differ by {abs(found - wanted):.1e}"
    )


if __name__ == "__main__":
    main()
