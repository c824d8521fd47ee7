"""`Record`, and the files in which records are stored.

A data set is a folder with an `index.json`. Each split has several TFRecord
files, called shards, with one `tf.train.Example` per record, or tar files of
WebDataset, or Parquet files. Next to each shard, a NumPy array has the offset
of every record.
"""

import dataclasses
import io
import json
import pathlib
import re
import tarfile

import numpy as np
import tensorflow as tf

from keras_bridgetower.checks import is_integer
from keras_bridgetower.data.records.places import open_place
from keras_bridgetower.files import parse_checksummed
from keras_bridgetower.files import parse_json
from keras_bridgetower.object_stores import StoreError

SCHEMA_VERSION = 1
TASKS = (
    "vqa",
    "captions",
    "entailment",
    "nlvr2",
    "image_classification",
    "text_classification",
)
# Maximum number of bytes of the pictures and texts of a record.
LARGEST_SAMPLE = 2**30
# Separates the two texts of a sample that has two, as in GLUE.
SECOND_TEXT = "\t"
# Bytes around a record in a TFRecord file: its length (8) and a checksum (4)
# before it, a checksum (4) after it.
FRAME_HEAD, FRAME_TAIL = 12, 4
OFFSETS = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("samples", "<u4"), ("crc", "<u4")]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One text about a picture, with the labels to predict.

    Args:
        id: str, unique in its split.
        text: str, may be empty. The two texts of a text pair are joined by a
            tab (`SECOND_TEXT`).
        labels: ints, positions in the data set's list of labels. Empty for
            captions.
        scores: floats, one per label: VQA's soft scores, or the value of a
            regression. Empty if labels have no scores.
    """

    id: str
    text: str
    labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A picture, or NLVR2's pair of pictures, with all of its texts.

    Args:
        key: str, unique in its split.
        images: tuple of bytes, the unchanged picture files.
        samples: tuple of `Sample`s, at least one.
        source: str, the table or file that the record comes from.
    """

    key: str
    images: tuple[bytes, ...]
    samples: tuple[Sample, ...]
    source: str

    def read(self):
        """Return the record itself, as `Draft.read` does."""
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A record whose pictures are not read yet.

    Args:
        key, samples, source: as in `Record`.
        pictures: tuple of picklable objects. `read()` returns the bytes of a
            picture file, and the `repr` must be another one for each
            picture. They may be read in other processes.
    """

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
    scores = [score for s in samples for score in s.scores]
    feature = {
        "key": _texts([record.key]),
        "source": _texts([record.source]),
        "images": _bytes(record.images),
        "id": _texts([s.id for s in samples]),
        "text": _texts([s.text for s in samples]),
        "label": _ints([label for s in samples for label in s.labels]),
        "label_count": _ints([len(s.labels) for s in samples]),
        "score": tf.train.Feature(float_list=tf.train.FloatList(value=scores)),
        "score_count": _ints([len(s.scores) for s in samples]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def decode(data):
    """Convert the bytes of a `tf.train.Example` to a record."""
    feature = tf.train.Example.FromString(data).features.feature
    texts = {
        name: [value.decode() for value in feature[name].bytes_list.value]
        for name in ("key", "source", "id", "text")
    }
    counts = {
        name: feature[f"{name}_count"].int64_list.value
        for name in ("label", "score")
    }
    labels = _split(feature["label"].int64_list.value, counts["label"])
    scores = _split(feature["score"].float_list.value, counts["score"])
    samples = zip(texts["id"], texts["text"], labels, scores, strict=True)
    return Record(
        texts["key"][0],
        tuple(feature["images"].bytes_list.value),
        tuple(Sample(*values) for values in samples),
        texts["source"][0],
    )


# `Record.source` of samples of tar files.
OF_TARS = "WebDataset"
# Parts of a sample in a tar file, by the ends of their names.
PARTS = {"picture": {"jpg", "jpeg", "png", "webp"}, "caption": {"txt"}}


def key_and_kind(name):
    """Split the name of a file in a tar file: `("a/0", "jpg")`."""
    folder, slash, file = name.rpartition("/")
    key, _, kind = file.partition(".")
    return f"{folder}{slash}{key}", kind.lower()


def end_of_member(tar, member):
    """Return where the member that was just read ends.

    Raises:
        ValueError: before it begins, so that reading would not end.
    """
    if tar.offset <= member.offset:
        raise ValueError(f"{member.name} has a negative size")
    return tar.offset


def decode_tar(data):
    """Convert the part of a tar file that has a sample to a record."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            # Of a sparse member, the holes are not in the file.
            if member.size > len(data) or not end_of_member(tar, member):
                raise ValueError(f"{member.name} is too large")
            key, kind = key_and_kind(member.name)
            for name, kinds in PARTS.items():
                if kind in kinds:
                    found.setdefault(name, tar.extractfile(member).read())
    text = found["caption"].decode("utf-8").strip()
    sample = Sample(key, text)
    return Record(key, (found["picture"],), (sample,), OF_TARS)


# `Record.source` of rows of Parquet files.
OF_PARQUET = "Parquet"


def encode_row(key, texts, picture):
    """Convert a row of a Parquet file to the bytes that its offsets sum up."""
    # JSON has no raw line break, so the first one ends it.
    return json.dumps([key, texts]).encode() + b"\n" + picture


def decode_row(data):
    """Convert the bytes of `encode_row` to a record."""
    head, _, picture = data.partition(b"\n")
    key, texts = parse_json(head)
    ids = (
        [key] if len(texts) == 1 else [f"{key}#{i}" for i in range(len(texts))]
    )
    samples = tuple(map(Sample, ids, texts))
    return Record(key, (picture,), samples, OF_PARQUET)


def shard_parts(shard):
    """Return the parts of a shard that a stream takes as its shards.

    Those of a Parquet file are its row groups, which are read as a whole.

    Args:
        shard: dict, an entry of the index.
    """
    if not shard.get("groups"):
        return [shard]
    parts, first = [], 0
    lists = ("groups", "left_out")
    whole = {k: v for k, v in shard.items() if k not in lists}
    for group, (records, samples, _) in enumerate(shard["groups"]):
        counts = {"records": records, "samples": samples}
        position = {"group": group, "first": first, "rows": shard["records"]}
        parts.append(whole | counts | position)
        first += records
    return parts


_DECODERS = {".tar": decode_tar, ".parquet": decode_row}


def find_decoder(shard):
    """Return the function that decodes the records of a shard, by its name."""
    return _DECODERS.get(pathlib.PurePath(shard).suffix, decode)


def shard_name(split, number, count):
    """Return a shard's file name, such as `train-00003-of-00008.tfrecord`."""
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def offsets_path(shard):
    """Return the path of the file with a shard's offsets."""
    return pathlib.Path(shard).with_suffix(".offsets.npy")


def _bytes(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _texts(values):
    return _bytes([value.encode() for value in values])


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _split(values, counts):
    ends = np.cumsum(counts, dtype=int)
    return [
        tuple(values[end - count : end])
        for end, count in zip(ends, counts, strict=True)
    ]


INDEX = "index.json"
# Maximum size in bytes; the index of a million shards is smaller.
_LARGEST_INDEX = 500_000_000
# Maximum number of records in a shard (1,000 by default), and other counts.
# Without them the index of others could make a reader allocate all memory.
_MOST_RECORDS = 10**7
_LARGEST = 10**15
# Errors of reading values that are missing or of another type.
OF_OTHER_CONTENT = (ValueError, KeyError, TypeError, AttributeError)


def read_index(folder, cache=None):
    """Read the `index.json` of a data set.

    Args:
        folder: path or URL of a data set.
        cache: `ShardCache` of an object store, or None.

    Returns:
        dict with `schema_version`, `task`, `labels`, `splits`.

    Raises:
        ValueError: the folder or the index is missing, or the index is
            damaged or has another schema version.
        StoreError: the object store does not give the index in time.
    """
    return load_index(open_place(folder, cache))


def load_index(place, name=INDEX):
    """Read the index of a `Folder` or `ShardStore`, as `read_index`."""
    try:
        text = place.read(name, _LARGEST_INDEX).decode()
        index = parse_checksummed(text)
        _check(index)
    except StoreError:
        raise
    except (OSError, *OF_OTHER_CONTENT) as error:
        raise ValueError(
            f"{place}/{name} must be the index of a data set, unchanged. "
            "Fetch it again, or build the data set again. "
            f"Received: {error!r:.500}"
        ) from error
    return index


def _check(index):
    """Raise if an index names other files, or numbers that are too large."""
    entries = index["splits"].values()
    shards = [shard for entry in entries for shard in entry["shards"]]
    versions = {part["schema_version"] for part in (index, *shards)}
    if versions != {SCHEMA_VERSION}:
        raise ValueError(f"schema versions {versions}")
    counts = [entry["num_shards"] for entry in entries]
    for shard in shards:
        sums = shard["sha256"], shard["offsets_sha256"]
        # They name files of a cache.
        if not all(re.fullmatch("[0-9a-f]{64}", sum) for sum in sums):
            raise ValueError(f"the checksums {sums}")
        counts += (shard[k] for k in ("records", "samples", "bytes"))
        counts += shard["sources"].values()
        counts += (n for group in shard.get("groups", ()) for n in group)
        # No path to another folder.
        if not shard["file"].isprintable() or {*shard["file"]} & {*"/\\"}:
            raise ValueError(f"the file {shard['file']!r}")
        if not shard["records"] <= min(shard["samples"], _MOST_RECORDS):
            raise ValueError(f"the numbers of records and samples of {shard}")
    if not all(is_integer(n) and 0 <= n <= _LARGEST for n in counts):
        raise ValueError("numbers that are too large, or no numbers")


def written(value):
    """Return the text that identifies a value in data sets and runs.

    It is the `repr`, with NumPy's integers written as Python's. If that of a
    dataclass changed, shards would be written again and runs could not
    continue: its name and those of its fields must stay.
    """
    return re.sub(r"np\.u?int\d+\((-?\d+)\)", r"\1", repr(value))


def written_without_addresses(value):
    """Return `written` without memory addresses: equal in all processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", written(value))
