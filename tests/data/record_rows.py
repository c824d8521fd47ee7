"""Records of every shape for the tests."""

import numpy as np

from keras_bridgetower.data.records import write as writing
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample

LABELS = ["no", "yes", ""]
# A picture in PPM if any bytes follow.
HEAD = b"P6 1 1 255 "

# Labels and scores of a sample.
TARGETS = (((), ()), ((2,), ()), ((0, 1), (0.5, 1.0)))


def made(count=30):
    rng = np.random.default_rng(0)
    return [
        Record(
            f"key {i}",
            tuple(HEAD + rng.bytes(40 + i) for _ in range(i % 3)),
            tuple(
                Sample(f"{i}-{j}", "täxt"[:j], *TARGETS[(i + j) % 3])
                for j in range(1 + i % 4)
            ),
            f"table {i % 2}",
        )
        for i in range(count)
    ]


def write(folder, rows=None, split="train", **changes):
    rows = made() if rows is None else rows
    options = dict(
        task="vqa", labels=LABELS, definition="All of it.", num_shards=4
    )
    return writing.write_shards(folder, split, rows, **options | changes)
