"""Texts that identify data sets and runs do not change."""

import dataclasses
import hashlib

import numpy as np
import pytest
import streams
from builders import FASTEST

from keras_bridgetower.data.augment.transforms import TRANSFORMS
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.datasets.arrow import ArrowPicture
from keras_bridgetower.data.datasets.cifar import CifarPicture
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.data.records.format import written_without_addresses
from keras_bridgetower.data.records.write import _hash_records
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.epoch_order import Shuffled

pytestmark = FASTEST

# The plans of shards with one record.
PICTURES = {
    "file": (
        FilePicture("a/0.jpg"),
        "692d55013d05786f393265e543a8751763bb40cb6b89778cd1445ba9281e80c9",
    ),
    "cifar": (
        CifarPicture("batch_1", 1, 7),
        "2db2f136b9d566f690eb3f60d9203c4c48f031bcd5cfc73b38a88258f08dcc6e",
    ),
    "table": (
        ArrowPicture("t.arrow", "image", 3),
        "3d99eeafc79d90eb40b546baefa23a1852680344323f50f7adc2e92787ad10b4",
    ),
}
SAMPLES = (
    Sample("0", "look at 0xff, 'ä'\ud800", (1, 0), (0.3, 1.0)),
    Sample("1", ""),
)
RECORD = Record("k", (b"\x00P6",), SAMPLES, "own")
OF_RECORD = "d08243741334c9f68c0501f67dd3f9dacb527e3c0540b1459d83a097624d6914"
# Of a folder with four shards, written by the same version.
OF_FOLDER = [
    "b14cd625f00eb9f3e3fc8952509744c6cd06d0348517f1bfc4d2e7c6a10f23ae",
    "28c66e03793e3f63d3ce9e9037c4afd334347f1766750c1e0b610b3aac963eb1",
    "fda2ea4ff3a17b0c6d489ff1af693b3fcdf7ef319eff46d67e2acdb18775ffdb",
    "10dca7b798e257e23b29c3d3b417c8a1bc199175a10140e4269e47eafacebee3",
]
# Of all transforms, each with both resizers.
OF_TRANSFORMS = (
    "a3fb79ce8b3d6b2cd7a6bec63afff89db50b942b1855450f84f6b2df8a5a2bf6"
)


@pytest.mark.parametrize("name", PICTURES)
def test_stored_plans_of_drafts(name):
    picture, known = PICTURES[name]
    draft = Draft("k", (picture, picture), SAMPLES, "own")
    assert _hash_records([draft]) == known


def test_stored_plans_of_records(tmp_path):
    assert _hash_records([RECORD]) == OF_RECORD
    labels = tuple(np.array([1, 0]))
    drawn = dataclasses.replace(SAMPLES[0], labels=labels)
    same = dataclasses.replace(RECORD, samples=(drawn, SAMPLES[1]))
    assert _hash_records([same]) == OF_RECORD
    rows = [streams.record("captions", i, samples=1) for i in range(8)]
    shards = streams.write(tmp_path / "captions", rows, "captions").shards
    assert [shard["plan"] for shard in shards] == OF_FOLDER


def test_stored_texts_of_orders_and_transforms():
    orders = Shuffled(np.int64(16)), Sequential()
    texts = [written_without_addresses(of) for of in orders]
    assert texts == ["Shuffled(window=16, lanes=1)", "Sequential(window=1)"]
    texts = [
        written_without_addresses(transform(name, 32, resizer))
        for name in TRANSFORMS
        for resizer in ("pillow", "torch")
    ]
    sums = hashlib.sha256("\n".join(texts).encode())
    assert sums.hexdigest() == OF_TRANSFORMS
