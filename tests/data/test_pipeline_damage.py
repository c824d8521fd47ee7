"""Bad samples are left out and reported."""

import contextlib
import dataclasses
import logging
import os

import numpy as np
import pytest
import streams
import tensorflow as tf
from builders import ONE_BACKEND
from builders import SIDE
from drawn_photos import jpeg_of_scans
from PIL import Image

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream

pytestmark = ONE_BACKEND
PLAIN = transform("blip", SIDE)
GOOD = streams.picture(0, form="JPEG")
# Kinds of damage: the bytes of the picture, the text, the labels, and a part of
# the report.
IMAGE = "readable image file"
KINDS = {
    "empty": (b"", "why?", (0,), IMAGE),
    "cut": (GOOD[: len(GOOD) // 2], "why?", (0,), IMAGE),
    "no picture": (b"/etc/hostname", "why?", (0,), IMAGE),
    "scrambled": (streams.picture(1)[:40] + b"\xff" * 200, "why?", (0,), IMAGE),
    "no text": (GOOD, "  ", (0,), "not be empty"),
    "not UTF-8": (GOOD, "\udcff\udcfe", (0,), "utf-8"),
    "label": (GOOD, "why?", (9,), "out of range"),
    "record": (GOOD, "why?", (0,), "damaged"),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Write 384 samples, 8 of them with different damage."""
    records = []
    for i in range(384):
        image, text, labels = GOOD, f"is it {i}?", (i % 4,)
        name = f"q{i}"
        if i % 48 == 24:
            name = list(KINDS)[i // 48]
            image, text, labels, _ = KINDS[name]
        sample = streams.Sample(name, text, labels, (0.9,))
        records.append(streams.Record(f"k{i}", (image,), (sample,), "s"))
    folder = tmp_path_factory.mktemp("damaged")
    reader = streams.write_unchecked(folder, records, num_shards=3)
    places = {reader.record(r).key: r for r in _readable(reader)}
    number = places["k360"]
    hidden = ({*range(384)} - {*places.values()}).pop()
    shard, row = reader.locate(number)
    offset = int(reader._offsets(shard)[0][row]["offset"])
    path = folder / reader.shards[shard]["file"]
    with open(path, "r+b") as file:
        file.seek(offset + 60)
        file.write(b"\xff\xfe\xfd")
    return streams.open_records(folder, "train"), (number, hidden)


def _readable(reader):
    for number in range(reader.num_records):
        with contextlib.suppress(ValueError):
            reader.record(number)
            yield number


def test_every_kind_of_damage_is_reported_exactly(reader, caplog):
    reader, places = reader
    stream = Stream(reader, 32, PLAIN, max_bad_share=0.025, order=Sequential())
    with caplog.at_level(logging.WARNING, "keras_bridgetower.data"):
        rows = [len(y) for _, y in stream.dataset(epochs=2)]
    assert sum(rows) == 2 * 376 and len(rows) == 24
    assert max(rows) == 32
    bad = {b.id: b.reason for b in stream.report.bad}
    # Two have no readable id.
    names = dict(zip(KINDS, KINDS, strict=True))
    names["record"], names["not UTF-8"] = (f"#{p}" for p in places)
    expected = set(names.values())
    assert set(bad) == expected and len(stream.report.bad) == 8
    for name, (*_, word) in KINDS.items():
        assert word in bad[names[name]]
    # Each once, although two epochs read it.
    assert len(caplog.records) == 8
    assert "8 of 384 samples were left out" in str(stream.report)
    assert {b.source for b in stream.report.bad} == {f"{reader.place}:train"}


def test_damage_does_not_affect_other_rows(reader):
    values = dict(max_bad_share=1, seed=2)
    damaged = Stream(reader[0], 32, PLAIN, **values)
    padded = Stream(reader[0], 32, PLAIN, remainder="pad", **values)
    texts, kept = [], []
    for number in range(damaged.steps_per_epoch):
        texts += streams.ids(damaged.batch(number)[0])
        x, y, weights = padded.batch(number)
        assert len(y) == 32
        kept += np.array(streams.ids(x))[weights == 1].tolist()
    good = {f"is it {i}?" for i in range(384) if i % 48 != 24}
    assert set(texts) == good and len(texts) == 376
    assert kept == texts


def test_dropped_and_padded_batches_are_full(reader):
    reader, _ = reader
    values = dict(max_bad_share=0.025, order=Sequential())
    stream = Stream(reader, 32, PLAIN, remainder="drop", **values)
    specs = tf.nest.flatten(stream.dataset().element_spec)
    assert {spec.shape[0] for spec in specs if spec.shape.rank} == {32}
    kept = Stream(reader, 32, PLAIN, **values)
    for number in range(stream.steps_per_epoch):
        x, y = stream.batch(number)
        left = streams.ids(kept.batch(number)[0])
        behind = streams.ids(kept.batch((number + 1) % 12)[0])
        expected = [*left, *behind][:32]
        assert streams.ids(x) == expected and len(y) == 32
    bad, expected = ([b.id for b in s.report.bad] for s in (stream, kept))
    assert bad == expected and len(bad) == 8
    # Rows that an epoch leaves out come in too.
    last = Stream(reader, 383, PLAIN, remainder="drop", **values).batch(0)
    assert len(set(streams.ids(last[0]))) == 376 and len(last[1]) == 383


def test_too_many_bad_samples_stop_the_stream(reader):
    reader, _ = reader
    for share, allowed in ((0.0, 0), (0.011, 4)):
        stream = Stream(reader, 32, PLAIN, max_bad_share=share)
        with pytest.raises(ValueError, match="`max_bad_share` allows") as e:
            for number in range(stream.steps_per_epoch):
                stream.batch(number)
        assert f"{allowed + 1} of 384 samples are bad" in str(e.value)
        assert len(stream.report.bad) == allowed + 1
    # By default one in a thousand, so none of 384.
    stream = Stream(reader, 32, PLAIN)
    with pytest.raises(tf.errors.OpError, match="`max_bad_share` allows"):
        [*stream.dataset(epochs=1)]


def test_a_batch_without_a_row(tmp_path):
    good = streams.record("vqa", 1, samples=1)
    bad = streams.Record(
        "k0", (b"",), (streams.Sample("b", "why?", (0,), (1.0,)),), "s"
    )
    reader = streams.write_unchecked(tmp_path, [bad, good], num_shards=1)
    values = dict(order=Sequential(), max_bad_share=1)
    stream = Stream(reader, 1, PLAIN, **values)
    empty = next(n for n in range(2) if not reader.sample(n).images[0])
    with pytest.raises(ValueError, match="no row that can be read"):
        stream.batch(empty)
    padded = Stream(reader, 1, PLAIN, remainder="pad", **values)
    x, y, weights = padded.batch(empty)
    assert weights == [0] and streams.ids(x) == [good.samples[0].text]
    filled = Stream(reader, 1, PLAIN, remainder="drop", **values)
    assert streams.ids(filled.batch(empty)[0]) == [good.samples[0].text]
    nothing = streams.write_unchecked(tmp_path / "none", [bad], num_shards=1)
    for remainder in ("pad", "drop"):
        stream = Stream(nothing, 1, PLAIN, remainder=remainder, **values)
        with pytest.raises(ValueError, match="no row that can be read"):
            stream.batch(0)


@pytest.mark.parametrize("weight", [1, 0.5])
def test_a_shard_all_of_whose_records_were_left_out(tmp_path, weight):
    rows = [streams.record("vqa", i) for i in range(8)]
    # As the writer shuffles them by seed 0: the first shard is left empty.
    first = np.random.default_rng(0).permutation(8)[:2].tolist()
    for number in first:
        rows[number] = dataclasses.replace(rows[number], images=(b"",))
    reader = streams.write(tmp_path, rows, max_bad_share=0.5)
    assert [shard["samples"] for shard in reader.shards] == [0, 6, 6, 6]
    stream = Stream(reader, 3, PLAIN, weights=[weight])
    batches = 18 // 3
    seen = [i for number in range(batches) for i in stream.ids(number)]
    assert len(stream.batch(0)[0]["text"]) == 3
    lost = {f"q{i}-{place}" for i in first for place in range(3)}
    every = {f"q{i}-{place}" for i in range(8) for place in range(3)}
    assert sorted(seen) == sorted(every - lost)
    os.remove(tmp_path / "train-00000-of-00004.offsets.npy")
    again = open_records(tmp_path, "train", max_bad_share=0.5)
    assert [*again.bad_shards] == ["train-00000-of-00004.tfrecord"]
    assert len(again) == 18


@pytest.mark.parametrize(
    "picture, change, reason",
    [
        (streams.picture(9, (90, 80)), "blip", "at most 2000 pixels"),
        (jpeg_of_scans(101), "blip", "at most 100 scans"),
        (streams.picture(9, (2000, 1)), "hf", ""),
    ],
    ids=["pixels", "scans", "thin"],
)
def test_a_bomb_is_one_bad_sample(
    picture, change, reason, tmp_path, monkeypatch
):
    records = [streams.record("vqa", i, 1) for i in range(3)]
    records[1] = dataclasses.replace(records[1], images=(picture,))
    reader = streams.write_unchecked(tmp_path, records, num_shards=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    stream = Stream(reader, 3, transform(change, SIDE), max_bad_share=0.5)
    assert len(stream.batch(0)[1]) == 2
    [bad] = stream.report.bad
    assert bad.id == "q1-0" and reason in bad.reason


def fails(image, side, rng, texts):
    raise ValueError("no such font")


def shrinks(image, side, rng, texts):
    return image.resize((1, 1))


@pytest.mark.parametrize(
    "step, message", [(fails, "no such font"), (shrinks, "`steps` must return")]
)
def test_errors_of_transforms_are_raised(step, message, tmp_path):
    records = [streams.record("vqa", i, 1) for i in range(3)]
    reader = streams.write(tmp_path, records, num_shards=1)
    broken = dataclasses.replace(PLAIN, steps=(step,))
    stream = Stream(reader, 3, broken, max_bad_share=1)
    with pytest.raises(ValueError, match=message):
        stream.batch(0)
    assert not stream.report.bad
