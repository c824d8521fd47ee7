"""Defines `Record`, and the file format in which records are stored.

A data set is a folder with an `index.json`. Each split has several TFRecord
files, called shards, with one `tf.train.Example` for each record. Beside each
shard lies an array with the offset of every record.
"""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from keras_bridgetower.data.records import seal
from keras_bridgetower.files import read_json

SCHEMA_VERSION = 1
INDEX = "index.json"
# In bytes. That of a million shards has fewer.
LARGEST_INDEX = 500_000_000
TASKS = (
    "vqa",
    "captions",
    "entailment",
    "nlvr2",
    "image_classification",
    "text_classification",
)
# Stands between the two texts of a sample that has two, as in GLUE.
SECOND_TEXT = "\t"
# Bytes around a record in a TFRecord file: before it its length (8) and a
# checksum (4), after it a checksum (4).
FRAME_HEAD, FRAME_TAIL = 12, 4
OFFSETS = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("samples", "<u4"), ("crc", "<u4")]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One text about a picture, with the labels that a model should give.

    Args:
        id: str, unique in its split.
        text: str, may be empty. If a text classifier reads two texts, they
            are joined by a tab (`SECOND_TEXT`).
        labels: ints, positions in the data set's list of labels. Empty for
            captions.
        scores: floats, one for each label: VQA's soft scores, or the number
            of a regression. Empty if labels have no scores.
    """

    WRITTEN_AS = (
        "Sample(id={id}, text={text}, labels={labels}, scores={scores})"
    )

    id: str
    text: str
    labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A picture with all of its texts; for NLVR2 a pair of pictures.

    Args:
        key: str, unique in its split.
        images: tuple of bytes, the unchanged picture files.
        samples: `Sample`s, at least one.
        source: str, the table or file from which it came.
    """

    WRITTEN_AS = (
        "Record(key={key}, images={images}, samples={samples}, source={source})"
    )

    key: str
    images: tuple[bytes, ...]
    samples: tuple[Sample, ...]
    source: str

    def read(self):
        """Return the record itself, so that it can be used like a `Draft`."""
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A record whose pictures are not read yet.

    Args:
        key: as in `Record`.
        pictures: tuple of objects. `read()` returns the bytes of a picture
            file, and `written` must return another text for each picture.
            They are pickled, to be read in other processes.
        samples: as in `Record`.
        source: as in `Record`.
    """

    WRITTEN_AS = (
        "Draft(key={key}, pictures={pictures}, samples={samples}, "
        "source={source})"
    )

    key: str
    pictures: tuple
    samples: tuple[Sample, ...]
    source: str

    def read(self):
        """Read the pictures and return the `Record`."""
        images = tuple(picture.read() for picture in self.pictures)
        return Record(self.key, images, self.samples, self.source)


def encode(record):
    """Convert a record to the bytes of a `tf.train.Example`."""
    samples = record.samples
    feature = {
        "key": _texts([record.key]),
        "source": _texts([record.source]),
        "images": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=record.images)
        ),
        "id": _texts([s.id for s in samples]),
        "text": _texts([s.text for s in samples]),
        "label": _ints([label for s in samples for label in s.labels]),
        "label_count": _ints([len(s.labels) for s in samples]),
        "score": tf.train.Feature(
            float_list=tf.train.FloatList(
                value=[score for s in samples for score in s.scores]
            )
        ),
        "score_count": _ints([len(s.scores) for s in samples]),
    }
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString(
        deterministic=True
    )


def decode(data):
    """Convert the bytes of a `tf.train.Example` to a record."""
    feature = tf.train.Example.FromString(data).features.feature
    labels = _split(
        feature["label"].int64_list.value,
        feature["label_count"].int64_list.value,
    )
    scores = _split(
        feature["score"].float_list.value,
        feature["score_count"].int64_list.value,
    )
    samples = zip(
        map(bytes.decode, feature["id"].bytes_list.value),
        map(bytes.decode, feature["text"].bytes_list.value),
        labels,
        scores,
        strict=True,
    )
    return Record(
        feature["key"].bytes_list.value[0].decode(),
        tuple(feature["images"].bytes_list.value),
        tuple(Sample(*values) for values in samples),
        feature["source"].bytes_list.value[0].decode(),
    )


def shard_name(split, number, count):
    """The name of a shard's file, such as `train-00003-of-00008.tfrecord`."""
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def offsets_path(shard):
    """The path of the file with a shard's offsets."""
    return pathlib.Path(shard).with_suffix(".offsets.npy")


def read_index(folder):
    """Read the `index.json` of a data set.

    Args:
        folder: path of a data set.

    Returns:
        dict with `schema_version`, `task`, `labels`, `splits`.

    Raises:
        ValueError: there is no folder or no index, or the index is damaged
            or has another schema version.
    """
    path = pathlib.Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(
            "A data set is a folder with an index.json, as "
            "`keras-bridgetower data build` writes it; there is none "
            "here. "
            f"Received: folder={str(folder)!r}"
        )
    try:
        index = read_json(path, LARGEST_INDEX)
        splits = index["splits"].values()
        versions = {index["schema_version"]} | {
            shard["schema_version"]
            for split in splits
            for shard in split["shards"]
        }
        problem = seal.problem(index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the index of a data set ({error!r}). Build the "
            f"data set again. Received: folder={str(folder)!r}"
        ) from error
    if versions != {SCHEMA_VERSION}:
        raise ValueError(
            f"All of a data set must be of schema version {SCHEMA_VERSION}; "
            "build it again with this version of the library. Received: "
            f"schema versions {sorted(versions, key=str)!s:.100} in {path}"
        )
    if problem:
        raise ValueError(
            f"{path} is not as it was written: {problem}. Fetch it again, or "
            "remove it and build the data set again. Received: "
            f"folder={str(folder)!r}"
        )
    return index


def _texts(values):
    return tf.train.Feature(
        bytes_list=tf.train.BytesList(value=[v.encode() for v in values])
    )


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _split(values, counts):
    ends = np.cumsum(counts, dtype=int)
    return [
        tuple(values[end - count : end])
        for end, count in zip(ends, counts, strict=True)
    ]
