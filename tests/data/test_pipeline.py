"""Streams: exact restarts, hosts, remainders and contents of batches."""

import numpy as np
import pytest
import streams
import tensorflow as tf
from builders import ANSWERS
from builders import ONE_BACKEND
from builders import SIDE
from builders import preprocessor
from builders import slow_on
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import Transform
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.stream import Stream

pytestmark = ONE_BACKEND
TRAIN = transform("blip_randaug_wc", SIDE)
PLAIN = transform("blip", SIDE)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vqa")
    return streams.write(folder, [streams.record("vqa", i) for i in range(13)])


def masked(**kwargs):
    return kbt.BridgeTowerMaskedLMPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), **kwargs
    )


def masked_stream(reader, seed=3):
    """Shuffled, augmented, masked, padded to buckets."""
    return Stream(
        reader,
        4,
        TRAIN,
        masked(buckets=(24, 30)),
        target="none",
        order=Shuffled(2),
        seed=seed,
        weights=[1.5],
    )


@slow_on("tensorflow")
def test_streams_start_at_any_batch(reader):
    whole = masked_stream(reader)
    steps = whole.steps_per_epoch
    expected = list(whole.dataset(epochs=3).as_numpy_iterator())
    assert len(expected) == 3 * steps == 45
    assert not np.array_equal(
        expected[0][0]["token_ids"], expected[steps][0]["token_ids"]
    )
    rng = np.random.default_rng(0)
    for number in rng.integers(0, 3 * steps, 20).tolist():
        start = divmod(number, steps)
        # A new process only has the folder and the numbers.
        fresh = masked_stream(
            streams.open_records(str(reader.place), reader.split)
        ).dataset(start, epochs=3)
        got = list(fresh.take(3).as_numpy_iterator())
        assert len(got) == min(3, 3 * steps - number)
        for batch, wanted in zip(got, expected[number:], strict=False):
            streams.assert_same(batch, wanted)
    streams.assert_same(whole.batch(17), expected[17])
    other = next(masked_stream(reader, seed=4).dataset().as_numpy_iterator())
    assert (other[0]["images"] != expected[0][0]["images"]).any()


def test_endless_and_finite_datasets(reader):
    stream = Stream(reader, 8, PLAIN)
    assert stream.steps_per_epoch == 5
    assert stream.dataset().cardinality() == tf.data.INFINITE_CARDINALITY
    assert stream.dataset(start=(1, 2), epochs=3).cardinality() == 8
    assert stream.dataset(start=(3, 0), epochs=3).cardinality() == 0
    steps = [int(x["step"]) for x, _ in stream.dataset(start=(2, 4)).take(3)]
    assert steps == [14, 15, 16]
    with pytest.raises(ValueError, match="`start` must be"):
        stream.dataset((0, 6))


@pytest.mark.parametrize("remainder", ["keep", "pad"])
def test_four_hosts_see_every_sample_once(reader, remainder):
    hosts = [
        Stream(
            reader, 8, TRAIN, seed=1, num_hosts=4, host=h, remainder=remainder
        )
        for h in range(4)
    ]
    alone = Stream(reader, 8, TRAIN, seed=1)
    seen, steps = [], set()
    for number in range(alone.steps_per_epoch):
        parts = [host.batch(number) for host in hosts]
        weights = [part[2] if part[2:] else np.ones(2) for part in parts]
        texts, images = [], []
        for (x, *_), weight in zip(parts, weights, strict=True):
            kept = weight.astype(bool)[: len(x["text"])]
            texts += np.array(streams.ids(x))[kept].tolist()
            images.append(x["images"][kept])
            steps.add(x["step"])
            assert remainder == "keep" or len(x["text"]) == 2
        # The order of one host, cut in parts; the last batch too.
        x, _ = alone.batch(number)
        assert texts == streams.ids(x)
        np.testing.assert_array_equal(np.concatenate(images), x["images"])
        seen += texts
    assert len(seen) == len(set(seen)) == 39
    assert steps == set(range(20))


def test_more_hosts_than_rows(reader):
    # Hosts share rows, not files. 39 rows leave 7 for the last batch of 16.
    values = {"num_hosts": 16, "remainder": "pad"}
    last = [
        Stream(reader, 16, PLAIN, host=h, **values).batch(2) for h in range(16)
    ]
    assert sum(float(w[0]) for _, _, w in last) == 7
    assert all(len(x["text"]) == 1 for x, _, _ in last)


def test_remainders_of_an_epoch(reader):
    sizes = {}
    for remainder in ("keep", "drop", "pad"):
        stream = Stream(reader, 8, PLAIN, remainder=remainder)
        built = stream.dataset(epochs=1)
        sizes[remainder] = [len(x["text"]) for x, *_ in built]
    assert sizes["keep"] == [8, 8, 8, 8, 7]
    assert sizes["drop"] == [8, 8, 8, 8]
    assert sizes["pad"] == [8, 8, 8, 8, 8]
    x, y, weights = stream.batch(4)
    np.testing.assert_array_equal(weights, [1] * 7 + [0])
    assert x["text"][7] == x["text"][0]
    np.testing.assert_array_equal(y[7], y[0])
    for remainder, known in (("keep", 0), ("drop", 3), ("pad", 4)):
        stream = Stream(reader, 8, PLAIN, remainder=remainder)
        specs = tf.nest.flatten(stream.dataset().element_spec)
        static = [spec.shape[0] for spec in specs if spec.shape.rank]
        assert static.count(8) == known


def test_sequential_batches(reader):
    record = reader.record(1)
    stream = Stream(reader, 3, PLAIN, order=Sequential())
    x, y = stream.batch(1)
    assert stream.ids(1) == [s.id for s in record.samples]
    assert streams.ids(x) == [s.text for s in record.samples]
    scores = np.zeros((3, 4), "float32")
    for row, sample in zip(scores, record.samples, strict=True):
        row[list(sample.labels)] = sample.scores
    np.testing.assert_array_equal(y, scores)
    np.testing.assert_array_equal(x["images"][0], PLAIN(record.images[0]))
    assert x["images"].dtype == np.uint8 and x["step"] == 1


def test_raw_and_preprocessed_batches_agree(reader):
    task = preprocessor()
    raw = Stream(reader, 5, TRAIN, remainder="pad")
    built = Stream(reader, 5, TRAIN, task, remainder="pad")
    x, y, weights = raw.batch(7)
    streams.assert_same(task(x, y, weights), built.batch(7))
    for number, batch in enumerate(built.dataset().take(2)):
        streams.assert_same(batch, built.batch(number))


def test_weights_of_sources(tmp_path):
    readers = [
        streams.write(
            tmp_path / name,
            [streams.record("captions", i + first) for i in range(count)],
            "captions",
        )
        for name, first, count in (("a", 0, 8), ("b", 50, 4))
    ]
    stream = Stream(readers, 6, PLAIN, weights=[0.5, 3])
    batches = [stream.batch(n) for n in range(2 * stream.steps_per_epoch)]
    ids = {i.decode() for _, y in batches for i in y.tolist()}
    assert ids == {f"0/k{i}" for i in range(8)} | {
        f"1/k{i}" for i in range(50, 54)
    }
    # Samples that repeat within an epoch are augmented differently.
    x, _ = Stream(readers[1], 24, TRAIN, weights=[2]).batch(0)
    texts = np.array(streams.ids(x))
    assert len(set(texts)) == 12
    for text in set(texts):
        first, second = x["images"][texts == text]
        assert (first != second).any()


def test_sided_texts_and_answers_are_not_mirrored(tmp_path):
    samples = [("what is left?", 0), ("what is it?", 0), ("what is it?", 1)]
    image = streams.picture(0)
    records = []
    for i in range(60):
        text, label = samples[i % 3]
        sample = streams.Sample(f"q{i}", text, (label,), (1.0,))
        records.append(streams.Record(f"k{i}", (image,), (sample,), "s"))
    labels = ["a cat", "the left one"]
    reader = streams.write(tmp_path, records, "vqa", labels=labels)
    flips = Transform(SIDE, (PLAIN.steps[0], TRAIN.steps[1]))
    x, y = Stream(reader, 60, flips).batch(0)
    mirrored = (x["images"] != PLAIN(image)).any((1, 2, 3))
    sided = np.array([t == "what is left?" for t in streams.ids(x)])
    sided |= y[:, 1] == 1
    assert sided.sum() == 40 and not mirrored[sided].any()
    assert 5 < mirrored[~sided].sum() < 15


LARGE, OF_VIT = transform("blip", 48), transform("vit", SIDE)


@pytest.mark.parametrize(
    "name, values",
    [
        ("batch_size", {"batch_size": 6, "num_hosts": 4}),
        ("host", {"num_hosts": 2, "host": 2}),
        *(("weights", {"weights": x}) for x in ([0.001], [1, 1], [np.nan])),
        ("target", {"target": "answer"}),
        ("transform", {"transform": None}),
        ("remainder", {"batch_size": 64, "remainder": "drop"}),
        ("remainder", {"batch_size": 16, "num_hosts": 16}),
        ("remainder", {"target": "none", "remainder": "pad"}),
        ("transform", {"transform": LARGE, "answers": ANSWERS}),
        ("transform", {"transform": OF_VIT, "answers": ANSWERS}),
        ("stream.labels", {"answers": ANSWERS[::-1]}),
        ("stream.labels", {"answers": [*ANSWERS, "more"]}),
        ("buckets", {"buckets": (9,), "num_hosts": 2}),
    ],
)
def test_wrong_arguments_are_rejected(reader, name, values):
    values = {"batch_size": 4, "transform": PLAIN, **values}
    given = {k: values.pop(k) for k in ("answers", "buckets") if k in values}
    if given:
        values["preprocessor"] = preprocessor(**given)
    with pytest.raises(ValueError, match=f"`{name}`"):
        Stream(reader, **values)
