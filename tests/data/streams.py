"""Small record folders for the tests of streams."""

import io
from unittest import mock

import keras
import numpy as np
from builders import ANSWERS
from PIL import Image

from keras_bridgetower.data.records import format
from keras_bridgetower.data.records import shuffled
from keras_bridgetower.data.records import write as record_writer
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.records.write import write_shards

LABELS = {
    "vqa": ANSWERS,
    "captions": [],
    "entailment": ["contradiction", "neutral", "entailment"],
    "nlvr2": ["False", "True"],
    "image_classification": ["cat", "dog"],
    "text_classification": ["no", "yes"],
}
TEXTS = {"image_classification": "", "text_classification": "a dog{}\tcat {}"}


def picture(number, size=(26, 20), form="PNG"):
    """Return encoded noise that depends on a number."""
    rng = np.random.default_rng(number)
    array = rng.integers(0, 256, (size[1], size[0], 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(array).save(file, form)
    return file.getvalue()


def record(task, number, samples=3, source="s"):
    """Return a record with samples `q<number>-<place>`."""
    labels = LABELS[task]
    pictures = {"nlvr2": 2, "text_classification": 0}.get(task, 1)
    text = TEXTS.get(task, "what is {} of {}?")
    built = [
        Sample(
            f"q{number}-{place}",
            text.format(number, "so " * (place + 1)),
            ((number + place) % len(labels),) if labels else (),
            (0.9,) if task == "vqa" else (),
        )
        for place in range(samples)
    ]
    images = (picture(2 * number + i) for i in range(pictures))
    return Record(f"k{number}", tuple(images), tuple(built), source)


def write(
    folder, records, task="vqa", num_shards=4, labels=None, max_bad_share=0.0
):
    """Write a split `train` and open it."""
    write_shards(
        folder,
        "train",
        records,
        task=task,
        labels=LABELS[task] if labels is None else labels,
        definition="made by a test",
        num_shards=num_shards,
        max_bad_share=max_bad_share,
    )
    return open_records(folder, "train")


def write_unchecked(folder, records, **kwargs):
    """Write records without the checks of the writer."""

    def texts(values):
        values = [v.encode("utf-8", "surrogateescape") for v in values]
        return format.tf.train.Feature(
            bytes_list=format.tf.train.BytesList(value=values)
        )

    with (
        mock.patch.object(shuffled, "check_sample"),
        mock.patch.object(record_writer, "_read_checked", Record.read),
        mock.patch.object(format, "_texts", texts),
    ):
        return write(folder, records, **kwargs)


def ids(batch):
    """Return the texts of a raw batch as strings."""
    return [text.decode() for text in batch["text"].tolist()]


def assert_same(a, b):
    """Two batches are equal to the bit."""
    for x, y in zip(*map(keras.tree.flatten, (a, b)), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True)
