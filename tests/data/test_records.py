"""Records: writing, reading by number, interrupted builds, damage."""

import collections
import concurrent.futures
import os
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
from builders import ONE_BACKEND
from record_rows import HEAD
from record_rows import LABELS
from record_rows import made
from record_rows import write

from keras_bridgetower import files
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import read as records
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample

pytestmark = ONE_BACKEND


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set")
    return tmp_path / "set"


def test_written_records_are_read(folder):
    rows = made()
    reader = records.open_records(folder, "train")
    assert (reader.task, reader.labels) == ("vqa", LABELS)
    assert reader.definition == "All of it."
    assert reader.num_records == len(rows)
    found = [reader.record(i) for i in range(reader.num_records)]
    assert sorted(found, key=lambda r: int(r.key[4:])) == rows
    order = np.random.default_rng(0).permutation(len(rows))
    assert [r.key for r in found] == [rows[i].key for i in order]
    flat = [(r.images, s, r.key, r.source) for r in found for s in r.samples]
    assert reader.num_samples == len(reader) == len(flat)
    for i, (images, sample, key, source) in enumerate(flat):
        item = reader.sample(i)
        assert item == records.Item(images, sample, item.record, key, source)
        assert found[item.record].key == key
        shard, row = reader.locate(i)
        before = sum(s["records"] for s in reader.shards[:shard])
        assert before + row == item.record
    sources = collections.Counter(source for *_, source in flat)
    assert reader.sources == sources
    assert reader.verify() == {}
    for i in (-1, len(flat)):
        with pytest.raises(IndexError):
            reader.sample(i)
    with pytest.raises(ValueError, match="`split`"):
        records.open_records(folder, "dev")


def test_a_generator_is_written_without_holding_it(tmp_path):
    rng = np.random.default_rng(0)
    rows = (
        Record(f"{i}", (HEAD + rng.bytes(20_000),), (Sample(f"{i}", ""),), "a")
        for i in range(400)
    )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".train.rows").write_bytes(b"of a killed process")
    tracemalloc.start()
    write(tmp_path / "set", rows, num_shards=10)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert records.open_records(tmp_path / "set", "train").num_records == 400
    assert most < 2e6
    assert not list((tmp_path / "set").glob(".*"))


def test_tensorflow_reads_the_records(folder):
    """Its reader checks the sums of the format."""
    import tensorflow as tf

    reader = records.open_records(folder, "train")
    files = [str(folder / shard["file"]) for shard in reader.shards]
    assert [os.path.basename(f) for f in files][3] == (
        "train-00003-of-00004.tfrecord"
    )
    data = tf.data.TFRecordDataset(files)
    features = [
        tf.train.Example.FromString(row.numpy()).features.feature
        for row in data
    ]
    assert len(features) == reader.num_records
    for i, feature in enumerate(features):
        record = reader.record(i)
        texts = [text.decode() for text in feature["text"].bytes_list.value]
        assert texts == [s.text for s in record.samples]
        assert [*feature["images"].bytes_list.value] == [*record.images]


def test_finished_shards_are_kept(folder):
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.tfrecord")}
    damaged, deleted, *kept = sorted(stamps)
    with open(folder / damaged, "r+b") as file:
        file.seek(40)
        file.write(b"?")
    os.remove(folder / deleted)
    entry = write(folder)
    assert entry == write(folder)
    assert records.open_records(folder, "train").verify() == {}
    for name in kept:
        assert (folder / name).stat().st_mtime_ns == stamps[name]
    # Other records have other plans, so changed shards are replaced.
    rows = made()
    rows[0] = Record(rows[0].key, (HEAD + b"new",), rows[0].samples, "table 0")
    changed = write(folder, rows)["shards"]
    plans = [shard["plan"] for shard in entry["shards"]]
    assert sum(s["plan"] in plans for s in changed) == 3


def test_many_builds_at_once(tmp_path):
    splits = [f"part{i}" for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(len(splits)) as pool:
        made = [pool.submit(write, tmp_path / "set", split=of) for of in splits]
        [of.result() for of in made]
    for split in splits:
        reader = records.open_records(tmp_path / "set", split)
        assert reader.num_records == 30


def test_shards_of_another_num_shards_are_removed(folder):
    write(folder, split="train-more", num_shards=2)
    (folder / "train-notes.tfrecord").touch()
    before = names(folder)
    (folder / "train-00001-of-00009.tfrecord.part").touch()
    write(folder, num_shards=3)
    old = {n for n in before if "-of-00004." in n}
    new = {n.replace("-of-00004.", "-of-00003.") for n in old}
    new -= {n for n in new if n.startswith("train-00003")}
    assert set(names(folder)) == ({*before} - old) | new
    assert len(old) == 8
    reader = records.open_records(folder, "train")
    assert len(reader.shards) == 3 and reader.verify() == {}


class Interrupts:
    def read(self):
        raise KeyboardInterrupt

    def __repr__(self):
        return "picture"


def stop(done, total):
    if done == 2:
        raise KeyboardInterrupt


def unreadable():
    rows = made()
    rows[7] = Draft("key 7", (Interrupts(),), rows[7].samples, "table 1")
    return rows


@pytest.mark.parametrize(
    "finished, options",
    [(None, {"rows": unreadable()}), (2, {"on_shard": stop})],
)
def test_interrupted_builds_continue(finished, options, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", **options)
    with pytest.raises(ValueError, match="of 4 shards.*continues"):
        records.open_records(tmp_path / "set", "train")
    check_continues(tmp_path, finished)


def check_continues(tmp_path, finished):
    """Finished shards of four are not written again."""
    done = []
    entry = write(tmp_path / "set", on_shard=lambda *call: done.append(call))
    assert finished in (None, done[0][0]) and done[-1] == (4, 4)
    assert entry == write(tmp_path / "whole")
    assert names(tmp_path / "set") == names(tmp_path / "whole")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_unreadable_pictures_are_left_out(tmp_path):
    picture = tmp_path / "0.jpg"
    picture.write_bytes(HEAD + b"red")
    (tmp_path / "1.jpg").touch()
    (tmp_path / "2.jpg").mkdir()
    (tmp_path / "4.jpg").write_bytes(b"<html>gone</html>")
    (tmp_path / "5.jpg").write_bytes(b"P6 1 x 255 ")
    files = {
        f"{i}.jpg": FilePicture(str(tmp_path / f"{i}.jpg")) for i in range(6)
    }
    drafts = [
        Draft(name, (file,), (Sample(name, "text"),), "own")
        for name, file in files.items()
    ]
    options = dict(task="captions", labels=(), num_shards=1)
    with pytest.raises(ValueError, match="5 of 6 records of split 'train'"):
        write(tmp_path / "set", drafts, **options)
    options["max_bad_share"] = 0.9
    entry = write(tmp_path / "set", drafts, **options)
    reasons = dict(entry["shards"][0]["left_out"])
    words = ["0 bytes", "Is a dir", "No such", "b'<html>gone", "ValueErr"]
    for i, word in enumerate(words, 1):
        assert word in reasons[f"{i}.jpg"]
    reader = records.open_records(tmp_path / "set", "train")
    assert reader.sample(0).images == (HEAD + b"red",)
    assert len(reader) == 1
    # The shard is kept until a picture is repaired.
    shard = tmp_path / "set" / "train-00000-of-00001.tfrecord"
    stamp = shard.stat().st_mtime_ns
    assert write(tmp_path / "set", drafts, **options) == entry
    assert shard.stat().st_mtime_ns == stamp
    (tmp_path / "1.jpg").write_bytes(HEAD + b"new")
    entry = write(tmp_path / "set", drafts, **options)
    assert "1.jpg" not in dict(entry["shards"][0]["left_out"])
    assert len(records.open_records(tmp_path / "set", "train")) == 2


def shard(folder, number=1):
    return folder / f"train-0000{number}-of-00004.tfrecord"


def test_a_damaged_record_is_named_and_others_are_read(folder):
    reader = records.open_records(folder, "train")
    want = [reader.record(i) for i in range(reader.num_records)]
    number = next(
        i
        for i, r in enumerate(want)
        if r.images and i >= reader.shards[0]["records"]
    )
    path, row = shard(folder), number - reader.shards[0]["records"]
    data = bytearray(path.read_bytes())
    data[data.index(want[number].images[0]) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(records.DamagedRecord, match=str(path)) as caught:
        reader.record(number)
    error = caught.value
    assert (error.shard, error.record) == (str(path), row)
    assert error.key == want[number].key
    # As a worker process returns it.
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.record, str(copy)) == (row, str(error))
    for i in range(reader.num_records):
        if i != number:
            assert reader.record(i) == want[i]
    assert reader.verify() == {
        path.name: f"{path.name} has a checksum that differs from the index"
    }


def test_a_file_cut_while_it_is_read(folder):
    reader = records.open_records(folder, "train")
    os.truncate(shard(folder, 3), 100)
    with pytest.raises(records.DamagedRecord, match="key None.*it is cut"):
        reader.record(reader.num_records - 1)


def _swap(folder):
    """Replace a shard by that of another build."""
    write(folder.parent / "other", seed=5)
    shutil.copy(shard(folder.parent / "other"), shard(folder))


LOST = {
    "cut shard": (lambda f: os.truncate(shard(f), 50), "bytes expected, 50"),
    "no shard": (lambda f: os.remove(shard(f)), "bytes expected, None"),
    "no offsets": (
        lambda f: os.remove(form.offsets_path(shard(f))),
        "its offsets: .* None found",
    ),
    "another shard": (_swap, "bytes expected"),
}


def test_another_schema_version_is_rejected(folder):
    path = folder / "index.json"
    index = files.parse_checksummed(path.read_text())
    index["splits"]["train"]["shards"][2]["schema_version"] = 7
    path.write_text(files.checksummed(index))
    with pytest.raises(ValueError, match="schema versions"):
        records.open_records(folder, "train")


@pytest.mark.parametrize("name", LOST)
def test_lost_shards_or_their_samples_are_rejected(folder, name):
    reader = records.open_records(folder, "train")
    want = [reader.sample(i) for i in range(len(reader))]
    damage, message = LOST[name]
    damage(folder)
    with pytest.raises(ValueError, match=f"1 of 4 shards.*{message}"):
        records.open_records(folder, "train", max_bad_share=0.1)
    reader = records.open_records(folder, "train", max_bad_share=0.25)
    assert list(reader.bad_shards) == [shard(folder).name]
    assert len(reader) == len(want)
    first = sum(s["samples"] for s in reader.shards[:1])
    lost = range(first, first + reader.shards[1]["samples"])
    for i in range(len(reader)):
        if i not in lost:
            assert reader.sample(i) == want[i]
            continue
        with pytest.raises(records.DamagedRecord) as caught:
            reader.sample(i)
        assert caught.value.shard == str(shard(folder))


def one(sample, key="k"):
    return Record(key, (), (sample,), "s")


ONE = Sample("a", "text", (1,))
BAD = [
    (dict(task="vqa2"), "`task`"),
    (dict(rows=[]), "empty"),
    (dict(rows=[one(Sample("a", "x", (3,)))]), "3 labels"),
    (dict(rows=[one(Sample("a", "x", (-1,)))]), "3 labels"),
    (dict(rows=[one(Sample("a", "x", (1,), (1.0, 1.0)))]), "scores"),
    (dict(rows=[one(ONE, "k"), one(ONE, "l")]), "Every id must.*id='a' twice"),
    (dict(rows=[one(ONE), one(Sample("b", "x"))]), "Every key must.*'k' twice"),
    (dict(rows=[one(Sample("a", "\ud800"))]), "text"),
    (dict(rows=[one(Sample("a", None))]), "text"),
    (dict(num_shards=31), "`num_shards`"),
    (dict(labels=["a", "b", "c"]), "labels"),
    (dict(task="captions"), "task"),
]


@pytest.mark.parametrize("changes, message", BAD)
def test_bad_records_are_rejected(folder, changes, message):
    before = (folder / "index.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        write(folder, **changes)
    assert (folder / "index.json").read_bytes() == before
