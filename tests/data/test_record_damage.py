"""Records that are damaged, lost, or rejected by the writer."""

import json
import os
import pickle
import shutil

import pytest
from builders import ONE_BACKEND
from record_rows import write

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample

pytestmark = ONE_BACKEND


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set")
    return tmp_path / "set"


def flip(path, place=-30):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def shard(folder, number=1):
    return folder / f"train-0000{number}-of-00004.tfrecord"


def test_a_damaged_record_is_named_and_others_are_read(folder):
    reader = read.open_records(folder, "train")
    want = [reader.record(i) for i in range(reader.num_records)]
    number = next(
        i
        for i, r in enumerate(want)
        if r.images and reader._locate_record(i)[0] == 1
    )
    path, row = shard(folder), reader._locate_record(number)[1]
    flip(path, path.read_bytes().index(want[number].images[0]) + 5)
    with pytest.raises(read.DamagedRecord) as caught:
        reader.record(number)
    error = caught.value
    assert (error.shard, error.record) == (str(path), row)
    assert error.key == want[number].key
    for text in (str(path), f"Record {row}", repr(want[number].key)):
        assert text in str(error)
    for i in range(reader.num_records):
        if i != number:
            assert reader.record(i) == want[i]
    assert reader.verify() == {
        path.name: f"{path.name} has another sum than the index"
    }


def test_a_file_cut_while_it_is_read(folder):
    reader = read.open_records(folder, "train")
    os.truncate(shard(folder, 3), 100)
    with pytest.raises(read.DamagedRecord, match="key None.*it is cut"):
        reader.record(reader.num_records - 1)


def _other_schema(folder):
    path = folder / "index.json"
    index = json.loads(path.read_text())
    index["splits"]["train"]["shards"][2]["schema_version"] = 7
    path.write_text(json.dumps(index))


def _swap(folder):
    """Replace a shard by that of another build."""
    write(folder.parent / "other", seed=5)
    shutil.copy(shard(folder.parent / "other"), shard(folder))


DAMAGES = [
    (shutil.rmtree, "index.json must be .*FileNotFound"),
    (
        lambda f: os.truncate(f / "index.json", 50),
        "index.json must be the index",
    ),
    (_other_schema, r"schema versions \[1, 7\]"),
]
LOST = {
    "cut shard": (lambda f: os.truncate(shard(f), 50), "bytes expected, 50"),
    "no shard": (lambda f: os.remove(shard(f)), "bytes expected, None"),
    "no offsets": (
        lambda f: os.remove(form.offsets_path(shard(f))),
        "its offsets: .*No such file",
    ),
    "changed offsets": (
        lambda f: flip(form.offsets_path(shard(f)), -1),
        "its offsets: they have another sum than the index",
    ),
    "cut offsets": (
        lambda f: os.truncate(form.offsets_path(shard(f)), 140),
        "its offsets",
    ),
    "another shard": (_swap, "bytes expected"),
}


@pytest.mark.parametrize("damage, message", DAMAGES)
def test_damaged_folders_are_rejected(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        read.open_records(folder, "train")


@pytest.mark.parametrize("name", LOST)
def test_lost_shards_or_their_samples_are_rejected(folder, name):
    reader = read.open_records(folder, "train")
    want = [reader.sample(i) for i in range(len(reader))]
    damage, message = LOST[name]
    damage(folder)
    with pytest.raises(ValueError, match=f"1 of 4 shards.*{message}"):
        read.open_records(folder, "train", max_bad_share=0.1)
    reader = read.open_records(folder, "train", max_bad_share=0.25)
    assert list(reader.bad_shards) == [shard(folder).name]
    assert len(reader) == len(want)
    first = sum(s["samples"] for s in reader.shards[:1])
    lost = range(first, first + reader.shards[1]["samples"])
    for i in range(len(reader)):
        if i not in lost:
            assert reader.sample(i) == want[i]
            continue
        with pytest.raises(read.DamagedRecord) as caught:
            reader.sample(i)
        assert caught.value.shard == str(shard(folder))
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value)


def one(sample, key="k"):
    return Record(key, (), (sample,), "s")


ONE = Sample("a", "text", (1,))
BAD = [
    (dict(task="vqa2"), "`task` must be one of"),
    (dict(rows=[]), "The split is empty.*split='train'"),
    (
        dict(rows=[one(Sample("a", "x", (3,)))]),
        r"list of 3 labels.*labels=\(3,\).*id='a'",
    ),
    (
        dict(rows=[one(Sample("a", "x", (1,), (1.0, 1.0)))]),
        "scores as many as labels",
    ),
    (dict(rows=[one(ONE, "k"), one(ONE, "l")]), "Every id must.*id='a' twice"),
    (dict(rows=[one(ONE), one(Sample("b", "x"))]), "Every key must.*'k' twice"),
    (dict(rows=[Record("k", (), (), "s")]), "needs a sample"),
    (dict(rows=[one(Sample("a", "\ud800"))]), "lone surrogates.*id='a'"),
    (dict(rows=[one(Sample("a", None))]), "must be a string"),
    (dict(num_shards=31), "`num_shards` must be from 1 to 30"),
    (dict(labels=["a", "b", "c"]), "one list of labels"),
    (dict(task="captions"), "has task 'vqa' with 3 labels"),
]


@pytest.mark.parametrize("changes, message", BAD)
def test_bad_records_are_rejected(folder, changes, message):
    before = (folder / "index.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        write(folder, **changes)
    assert (folder / "index.json").read_bytes() == before


def test_unknown_splits_are_rejected(folder):
    with pytest.raises(ValueError, match=r"one of \['train'\].*split='dev'"):
        read.open_records(folder, "dev")
