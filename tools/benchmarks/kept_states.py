"""Time training on kept states beside training with frozen towers.

    python tools/benchmarks/kept_states.py bridgetower_small_photo_retrieval
    python tools/benchmarks/kept_states.py PRESET base base:96 --write

A case is a preset, or `base`, a random model of base width; after a colon
follows the number of merged image tokens. Epochs with towers and from states
take turns. Prints medians of the CPU time of a pair in `fit`, in one thread,
and of the ratio, what an epoch of 10,000 pairs takes, the memory that an epoch
adds, and the bytes of a picture. `--write` puts the table into
docs/performance.md.
"""

import argparse
import ctypes
import os
import sys
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "torch")
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
from turns.devices import forget_peak  # noqa: E402
from turns.devices import peak_bytes  # noqa: E402

import keras_bridgetower as kbt  # noqa: E402
from keras_bridgetower.training import AdamW  # noqa: E402

sys.path.append(os.path.join(os.path.dirname(__file__), ".."))
import tables  # noqa: E402

OBJECTIVE = "random_negatives"
EPOCH = 10_000
HEAD = (
    *("model", "towers frozen", "from states", "ratio", "10,000 pairs"),
    *("memory, with towers", "from states", "keeping a pair"),
    "float32, float16, int8 of a picture",
)


def opened(case):
    """Return the task of a case, with frozen towers."""
    name, _, tokens = case.partition(":")
    given = {"image_tokens": int(tokens) if tokens else None}
    if name == "base":
        task = base(**given)
    else:
        task = kbt.BridgeTowerRetrieval.from_preset(
            name, objective=OBJECTIVE, random_heads=True, **given
        )
    task.backbone.image_tower.trainable = False
    task.backbone.text_tower.trainable = False
    return task


def base(**given):
    """Return a random model of the size of BridgeTower base at 288 px."""
    width = dict(
        hidden_dim=768, num_layers=12, num_heads=12, intermediate_dim=3072
    )
    backbone = kbt.BridgeTowerBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=16, image_shape=(288, 288, 3), **width
        ),
        keras_hub.models.RobertaBackbone(vocabulary_size=50_265, **width),
        **given,
    )
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"Ġ0123456789acot"]
    vocabulary = {word: number for number, word in enumerate(words)}
    preprocessor = kbt.BridgeTowerRetrievalPreprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, [], sequence_length=32),
        kbt.BridgeTowerImageConverter(288),
        OBJECTIVE,
    )
    return kbt.BridgeTowerRetrieval(backbone, preprocessor, OBJECTIVE)


class Turn(keras.callbacks.Callback):
    """CPU seconds of an epoch, and the bytes that it added to the process.

    `fit` itself also checks once that the states are of these weights.
    """

    def on_train_begin(self, logs=None):
        # The system gets back what earlier epochs have freed.
        ctypes.CDLL(None).malloc_trim(0)
        self.before, self.started = forget_peak(), time.process_time()

    def on_train_end(self, logs=None):
        self.seconds = time.process_time() - self.started
        self.memory = peak_bytes() - self.before


def turn(task, x, y, batch_size):
    """Train an epoch; return its CPU seconds and the bytes that it added."""
    taken = Turn()
    task.fit(x, y, batch_size=batch_size, verbose=0, callbacks=[taken])
    return taken.seconds, taken.memory


def measured(case, count, size, rounds):
    """Return the cells of a case."""
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (count, 320, 320, 3), dtype="uint8"))
    x = {"images": pictures, "text": [f"a cat, {i}" for i in range(count)]}
    y = {"match": rng.integers(0, 2, count)}
    task = opened(case)
    task.compile(AdamW(1e-4))
    with tempfile.TemporaryDirectory() as folder:
        images = task.keep_states(f"{folder}/0", images=pictures[:1], verbose=0)
        tokens, width = images.identity["shape"]
        started = time.process_time()
        kept = {
            "images": task.keep_states(f"{folder}/i", pictures, verbose=0),
            "text": task.keep_states(f"{folder}/t", texts=x["text"], verbose=0),
        }
        seconds = time.process_time() - started
        # The first of each does not count.
        turns = [
            [turn(task, each, y, size) for each in (x, kept)]
            for _ in range(rounds + 1)
        ][1:]
    (slow, much), (fast, little) = np.median(turns, axis=0)
    ratio = np.median([a / b for (a, _), (b, _) in turns])
    numbers = [f"{n * tokens * width / 1e3:,.0f}" for n in (4, 2, 1)]
    return (
        f"`{case}`",
        *(f"{1e3 * slow / count:,.0f} ms", f"{1e3 * fast / count:,.0f} ms"),
        f"{ratio:.1f}",
        f"{fast / count * EPOCH / 60:,.0f} minutes",
        *(f"{much / 1e9:.1f} GB", f"{little / 1e9:.1f} GB"),
        f"{1e3 * seconds / count:,.0f} ms",
        f"{', '.join(numbers)} kB",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    settings = parser.parse_args()
    sizes = settings.pairs, settings.batch_size, settings.rounds
    rows = [measured(case, *sizes) for case in settings.cases]
    table = tables.markdown([HEAD, *rows])
    print(table)
    if settings.write:
        tables.replace("docs/performance.md", "kept states", table)


if __name__ == "__main__":
    main()
