"""Records by position: any sample of a data set, read when it is asked for."""

import collections
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import threading
import zlib

import numpy as np

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import sha256

# A process may hold some 1,000 files, and there are larger data sets.
OPEN_FILES = 256


class DamagedRecord(ValueError):
    """A record whose bytes are not those that were written.

    Args:
        shard: str, path of the file.
        record: int, number of the record in that file.
        key: str, key of the record where it can still be read, or None.
        reason: str.
    """

    def __init__(self, shard, record, key, reason):
        super().__init__(
            f"Record {record} (key {key!r}) of {shard} is damaged: {reason}. "
            "tools/build_dataset.py build writes damaged shards again."
        )
        self.shard, self.record, self.key = shard, record, key
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.shard, self.record, self.key, self.reason)


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One sample and the pictures it belongs to.

    Args:
        images: bytes of the picture files.
        sample: `Sample`.
        record: int, number of the record in the split.
        key: str, key of the record.
        source: str, where the record came from.
    """

    images: tuple[bytes, ...]
    sample: Sample
    record: int
    key: str
    source: str


def open_records(folder, split, max_bad_share=0.0):
    """Open a split that `write_shards` wrote.

    Args:
        folder: path of the data set.
        split: str.
        max_bad_share: float in 0..1, how large a share of the shards may be
            missing or cut. Samples keep their numbers; those that are lost
            raise `DamagedRecord` when they are read.

    Returns:
        `RecordReader`.

    Raises:
        ValueError: no data set, no such split, one that is not finished, of
            another schema, or of whose shards more are missing or cut.

    Example:

    ```python
    from keras_bridgetower import data

    sample = data.Sample("0", "It rained.")
    record = data.Record("0", (), (sample,), "own")
    data.write_shards(
        "texts",
        "train",
        [record],
        task="captions",
        definition="All rows.",
    )
    reader = open_records("texts", "train")
    reader.sample(0).sample.text  # "It rained."
    ```
    """
    index = form.read_index(folder)
    if split not in index["splits"]:
        raise ValueError(
            f"`split` must be one of {sorted(index['splits'])}, those of "
            f"{folder}. Received: split={split!r}"
        )
    entry = index["splits"][split]
    if len(entry["shards"]) != entry["num_shards"]:
        raise ValueError(
            f"Split {split!r} of {folder} has {len(entry['shards'])} of "
            f"{entry['num_shards']} shards. The same call of "
            "tools/build_dataset.py build continues. Received: "
            f"split={split!r}"
        )
    reader = RecordReader(folder, split, index)
    if len(reader.bad_shards) > max_bad_share * entry["num_shards"]:
        name, reason = next(iter(reader.bad_shards.items()))
        raise ValueError(
            f"{len(reader.bad_shards)} of {entry['num_shards']} shards of "
            f"{folder} are damaged, more than max_bad_share allows. "
            "tools/build_dataset.py build writes them again. Received: "
            f"max_bad_share={max_bad_share}; the first is {name}: {reason}"
        )
    return reader


class RecordReader:
    """A split, read by position; safe to use from many threads.

    Args:
        folder: path of the data set.
        split: str.
        index: dict, what `index.json` says.

    Attributes:
        task: str, one of `TASKS`.
        labels: list of str.
        definition: str, in words what the split is.
        num_records, num_samples: int.
        sources: dict from the name of a source to its number of samples.
        bad_shards: dict from the names of shards that are missing or cut to
            the reason.
    """

    def __init__(self, folder, split, index):
        self.folder = pathlib.Path(folder)
        self.split = split
        self.task = index["task"]
        self.labels = index["labels"]
        entry = index["splits"][split]
        self.definition = entry["definition"]
        self.shards = entry["shards"]
        sources = [collections.Counter(s["sources"]) for s in self.shards]
        self.sources = dict(sum(sources, collections.Counter()))
        self.bad_shards = {}
        self._offsets = [self._load_offsets(shard) for shard in self.shards]
        self._first_record = _starts([len(rows) for rows in self._offsets])
        self._first_sample = _starts(
            np.concatenate([rows["samples"] for rows in self._offsets])
        )
        self.num_records = int(self._first_record[-1])
        self.num_samples = int(self._first_sample[-1])
        if not self.num_samples:
            raise ValueError(
                f"The split of {folder} is empty. Received: split={split!r}"
            )
        self._open = functools.lru_cache(OPEN_FILES)(_OpenFile)

    def __repr__(self):
        name = f"{str(self.folder)!r}, split {self.split!r}, task {self.task!r}"
        size = f"{self.num_samples:,} samples in {self.num_records:,} records"
        return f"<RecordReader {name}: {size}, {len(self.labels):,} labels>"

    def __len__(self):
        return self.num_samples

    def record_of(self, i):
        """Number of the record that holds the i-th sample."""
        if not 0 <= i < self.num_samples:
            raise IndexError(
                f"Samples are numbered 0 to {self.num_samples - 1}. "
                f"Received: i={i}"
            )
        return int(np.searchsorted(self._first_sample, i, "right")) - 1

    def locate(self, i):
        """Number of the shard and of the record in it, for the i-th sample."""
        return self._place(self.record_of(i))

    def record(self, number):
        """The `Record` of a number in `range(num_records)`."""
        shard, row = self._place(number)
        offset, length, samples, crc = self._offsets[shard][row].tolist()
        path = str(self.folder / self.shards[shard]["file"])
        try:
            data = self._open(path).read(length, offset)
        except OSError as error:
            raise DamagedRecord(path, row, None, str(error)) from error
        if zlib.crc32(data) != crc:
            reason = "its sum is wrong" if len(data) == length else "it is cut"
            raise DamagedRecord(path, row, _key(data), reason)
        made = form.decode(data)
        if len(made.samples) != samples:
            reason = f"{samples} samples expected, {len(made.samples)} found"
            raise DamagedRecord(path, row, made.key, reason)
        return made

    def sample(self, i):
        """The i-th sample with its pictures, an `Item`."""
        number = self.record_of(i)
        record = self.record(number)
        return Item(
            record.images,
            record.samples[i - int(self._first_sample[number])],
            number,
            record.key,
            record.source,
        )

    def verify(self):
        """Read every file once.

        Returns:
            dict from the name of a damaged shard to what is wrong with it.
        """
        found = {s["file"]: damage(self.folder, s) for s in self.shards}
        return {name: why for name, why in found.items() if why}

    def _place(self, number):
        if not 0 <= number < self.num_records:
            raise IndexError(
                f"Records are numbered 0 to {self.num_records - 1}. "
                f"Received: number={number}"
            )
        shard = int(np.searchsorted(self._first_record, number, "right")) - 1
        return shard, number - int(self._first_record[shard])

    def _load_offsets(self, shard):
        path = self.folder / shard["file"]
        counts = shard["records"], shard["samples"]
        try:
            data = form.offsets_path(path).read_bytes()
            if hashlib.sha256(data).hexdigest() != shard["offsets_sha256"]:
                raise ValueError("they have another sum than the index")
            rows = np.load(io.BytesIO(data), allow_pickle=False)
            if (len(rows), rows["samples"].sum()) != counts:
                raise ValueError(f"{counts} records and samples expected")
        # Bytes that anyone may have written make NumPy raise nearly anything.
        except Exception as error:
            self.bad_shards[path.name] = f"its offsets: {error!s:.200}"
            return _unreadable(*counts)
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            reason = f"{shard['bytes']} bytes expected, {size} found"
            self.bad_shards[path.name] = reason
        return rows

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k != "_open"}

    def __setstate__(self, state):
        open_file = functools.lru_cache(OPEN_FILES)(_OpenFile)
        vars(self).update(state, _open=open_file)


def damage(folder, shard):
    """What is wrong with the files of a shard, in words, or `""`."""
    file = pathlib.Path(folder) / shard["file"]
    sums = {file: "sha256", form.offsets_path(file): "offsets_sha256"}
    for path, key in sums.items():
        if not path.is_file():
            return f"{path.name} is missing"
        if sha256(path) != shard[key]:
            return f"{path.name} has another sum than the index"
    return ""


class _OpenFile:
    """A file that is closed once no thread reads it any more."""

    file = None

    def __init__(self, path):
        self.file = open(path, "rb", buffering=0)
        self._turn = threading.Lock()

    def read(self, length, offset):
        if hasattr(os, "pread"):
            return os.pread(self.file.fileno(), length, offset)
        # Windows has no `pread`: threads take turns to move the position.
        with self._turn:
            self.file.seek(offset)
            return self.file.read(length)

    def __del__(self):
        if self.file is not None:
            self.file.close()


def _unreadable(records, samples):
    """Offsets of records that are lost, so that others keep their numbers."""
    rows = np.zeros(records, form.OFFSETS)
    rows["samples"] = 1
    rows["samples"][:1] += samples - records
    # No bytes at all have the sum 0.
    rows["crc"] = 1
    return rows


def _starts(counts):
    return np.concatenate([[0], np.cumsum(counts, dtype="int64")])


def _key(data):
    try:
        return form.decode(data).key
    except Exception:  # any: the bytes are arbitrary
        return None
