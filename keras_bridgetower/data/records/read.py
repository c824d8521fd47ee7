"""Reads records of a data set by number, in any order."""

import collections
import dataclasses
import functools
import hashlib
import threading
import zlib

import numpy as np

from keras_bridgetower import object_stores
from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import row_groups
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.places import open_place
from keras_bridgetower.files import read_most

# Maximum number of bytes before the offsets in their file.
_LARGEST_HEAD = 10_000
# Shards whose offsets stay in memory, unless a stream reads more at a time.
_KEPT = 64


class DamagedRecord(ValueError):
    """Raised if the bytes of a record are not those that were written.

    Args:
        shard: str, path of the file.
        record: int, the number of the record in the file.
        key: str, key of the record; None if it cannot be read.
        reason: str.
    """

    def __init__(self, shard, record, key, reason):
        super().__init__(
            f"Record {record} (key {key!r}) of {shard} is damaged: {reason}. "
            "`keras-bridgetower data build` writes damaged shards again."
        )
        self.shard, self.record, self.key = shard, record, key
        self.reason = reason

    def __reduce__(self):
        # A process that reads records returns its errors by pickle.
        return type(self), (self.shard, self.record, self.key, self.reason)


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One sample with its pictures.

    Args:
        images: tuple of bytes, the picture files.
        sample: `Sample`.
        record: int, the number of the record in the split.
        key: str, key of the record.
        source: str, the table or file that the record comes from.
    """

    images: tuple[bytes, ...]
    sample: Sample
    record: int
    key: str
    source: str


def open_records(folder, split, max_bad_share=0.0, cache=None):
    """Open a split of `write_shards`, `index_tars` or `index_parquet`.

    Args:
        folder: path of the data set, or its URL in an object store, such as
            `"s3://bucket/data"`, `"gs://..."` or `"https://..."`.
        split: str.
        max_bad_share: float from 0 to 1, the share of the shards that may be
            missing or cut in a folder. Samples keep their numbers, and reading
            a lost sample raises `DamagedRecord`. A shard that is missing in an
            object store raises `StoreError` when it is read.
        cache: `ShardCache`, where shards of an object store are kept; None
            for its default values.

    Returns:
        `RecordReader`.

    Raises:
        ValueError: the data set or the split does not exist, is unfinished
            or has another schema version, or too many shards are missing or
            cut.
        StoreError: the object store does not give the index in time.

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
    index = read_index(folder, cache)
    check_choice("split", split, sorted(index["splits"]))
    entry = index["splits"][split]
    if len(entry["shards"]) != entry["num_shards"]:
        raise ValueError(
            f"{split!r} of {folder} has {len(entry['shards'])} of "
            f"{entry['num_shards']} shards. The same build continues it."
        )
    reader = RecordReader(folder, split, index, cache)
    if len(reader.bad_shards) > max_bad_share * entry["num_shards"]:
        name, reason = next(iter(reader.bad_shards.items()))
        raise ValueError(
            f"{len(reader.bad_shards)} of {entry['num_shards']} shards are "
            f"damaged; {max_bad_share=} allows fewer. First {name}: {reason}"
        )
    return reader


class RecordReader:
    """Reads the samples of a split by number, from any number of threads.

    The offsets of a shard are read when its turn comes.

    Args:
        folder: path or URL of the data set.
        split: str.
        index: dict, the content of `index.json`.
        cache: as `open_records`.

    Attributes:
        task: str, one of `TASKS`.
        labels: list of str.
        definition: str, a description of the split.
        num_records, num_samples: int.
        sources: dict from names of sources to numbers of samples.
        bad_shards: dict from the names of missing or cut shards to reasons.
            Those whose offsets are damaged are added when they are read.
        is_far: bool, whether the files are in an object store.
    """

    def __init__(self, folder, split, index, cache=None):
        self.place = open_place(folder, cache)
        self.is_far = self.place.is_far
        self.split = split
        self.task = index["task"]
        self.labels = index["labels"]
        entry = index["splits"][split]
        self.definition = entry["definition"]
        self.files = entry["shards"]
        self.shards = [p for file in self.files for p in form.shard_parts(file)]
        sources = [collections.Counter(s["sources"]) for s in self.files]
        self.sources = dict(sum(sources, collections.Counter()))
        self.bad_shards = self._find_bad()
        groups = (g for s in self.files for g in s.get("groups", ()))
        self._largest_group = max((size for *_, size in groups), default=0)
        self.keep_offsets(1)
        self._first_record = _starts([s["records"] for s in self.shards])
        self._first_sample = _starts([s["samples"] for s in self.shards])
        self.num_records = int(self._first_record[-1])
        self.num_samples = int(self._first_sample[-1])

    def __repr__(self):
        name = f"{str(self.place)!r}, split {self.split!r}, task {self.task!r}"
        size = f"{self.num_samples:,} samples in {self.num_records:,} records"
        return f"<RecordReader {name}: {size}, {len(self.labels):,} labels>"

    def __len__(self):
        return self.num_samples

    def locate(self, i):
        """Return the i-th sample's shard and its record's number in it."""
        return self._find(i)[:2]

    def record(self, number):
        """Read the `Record` with a number from 0 to `num_records - 1`."""
        shard = _part_with(self._first_record, number, "Records")
        return self._read(shard, number - int(self._first_record[shard]))

    def sample(self, i):
        """Read the i-th sample with its pictures, as an `Item`."""
        shard, row, number = self._find(i)
        record = self._read(shard, row)
        return Item(
            record.images,
            record.samples[number],
            int(self._first_record[shard]) + row,
            record.key,
            record.source,
        )

    def verify(self):
        """Read all files and compare them with their checksums.

        Returns:
            dict from names of damaged shards to descriptions of the damage.
        """
        found = {s["file"]: describe_damage(self.place, s) for s in self.files}
        return {name: why for name, why in found.items() if why}

    def keep_offsets(self, count):
        """Keep the offsets of more shards in memory, and more row groups.

        Args:
            count: int, number of shards that are read at a time.
        """
        self._offsets = Cached(self._load_offsets, max(count, _KEPT))
        count = row_groups.count_to_keep(
            min(count, len(self.shards)), self._largest_group, self.place
        )
        self._groups = Cached(self._load_group, count)

    def read_ahead(self, numbers):
        """Fetch shards of an object store in the background.

        Args:
            numbers: list of int, the shards that are needed first in front.
        """
        shards = (self.shards[number] for number in numbers)
        good = (s for s in shards if s["file"] not in self.bad_shards)
        self.place.read_ahead([file for s in good for file in _list_files(s)])

    def _find(self, i):
        """Return the shard, the record in it and the number in the record."""
        shard = _part_with(self._first_sample, i, "Samples")
        inside = i - int(self._first_sample[shard])
        _, starts = self._offsets(shard)
        row = _part_with(starts, inside, "Samples")
        return shard, row, inside - int(starts[row])

    def _read(self, shard, row):
        rows, _ = self._offsets(shard)
        offset, length, _, crc = rows[row].tolist()
        name = self.shards[shard]["file"]
        path = f"{self.place}/{name}"
        if not length or (self.is_far and name in self.bad_shards):
            raise DamagedRecord(path, row, None, self.bad_shards[name])
        try:
            if length > form.LARGEST_SAMPLE:
                raise object_stores.DamagedFile(f"a record of {length:,} bytes")
            data = self._bytes(shard, offset, length)
        except object_stores.StoreError:
            raise
        except (OSError, object_stores.DamagedFile) as error:
            if self.is_far:
                self.bad_shards[name] = str(error)
            raise DamagedRecord(path, row, None, str(error)) from error
        record, reason = None, ""
        try:
            record = form.find_decoder(name)(data)
        # Damaged bytes cause errors of many types.
        except Exception as error:
            reason = f"it cannot be decoded: {error!s:.300}"
        if len(data) != length:
            reason = "it is cut or another one"
        elif zlib.crc32(data) != crc:
            reason = "its sum is wrong"
        if reason:
            raise DamagedRecord(path, row, record and record.key, reason)
        return record

    def _bytes(self, number, offset, length):
        """Return the bytes of a record."""
        shard = self.shards[number]
        if "group" in shard:
            return self._groups(number).encoded(offset)
        with self._open(shard) as file:
            file.seek(offset)
            return file.read(length)

    def _open(self, shard):
        return self.place.open(*_list_files(shard)[1])

    def _load_group(self, number):
        shard = self.shards[number]
        with self._open(shard) as file:
            told = (shard[key] for key in ("file", "columns", "group"))
            return row_groups.RowGroup(file, *told)

    def _find_bad(self):
        """Return the reasons of shards whose files are missing or cut."""
        # Listings of object stores may be old.
        if self.is_far:
            return {}
        sizes, found = self.place.names(), {}
        for shard in self.shards:
            name, offsets = shard["file"], form.offsets_path(shard["file"]).name
            least = shard["records"] * form.OFFSETS.itemsize
            size, of_offsets = sizes.get(name), sizes.get(offsets)
            if size != shard["bytes"]:
                found[name] = f"{shard['bytes']} bytes expected, {size} found"
            elif of_offsets is None or of_offsets < least:
                found[name] = (
                    f"its offsets: {least} bytes expected, {of_offsets} found"
                )
        return found

    def _load_offsets(self, number):
        """Return the offsets of a shard, and the first sample of each record.

        If they are damaged, records have no bytes, and reading them fails.
        """
        shard = self.shards[number]
        name, counts = shard["file"], (shard["records"], shard["samples"])
        try:
            offsets, _ = _list_files(shard)
            with self.place.open(*offsets) as file:
                data = read_most(file, offsets[-1])
            if hashlib.sha256(data).hexdigest() != shard["offsets_sha256"]:
                raise ValueError("their checksum differs from the index")
            # Not `np.load`, which makes room for as many as the head names.
            count = shard.get("rows", shard["records"])
            start = len(data) - count * form.OFFSETS.itemsize
            rows = np.frombuffer(data, form.OFFSETS, offset=start)
            if "group" in shard:
                rows = rows[shard["first"] :][: shard["records"]]
            if (len(rows), rows["samples"].sum()) != counts:
                raise ValueError(f"{counts} records and samples expected")
        except object_stores.StoreError:
            raise
        except (OSError, ValueError) as error:
            self.bad_shards[name] = f"its offsets: {error!s:.200}"
            rows = _unreadable(*counts)
        return rows, _starts(rows["samples"])


def describe_damage(place, shard):
    """Describe the damage of a shard's files, or return `""`."""
    for name, checksum, *sizes in _list_files(shard):
        found = None
        try:
            with place.open(name, checksum, *sizes) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return f"{name} is missing"
        except object_stores.DamagedFile:
            pass
        if found != checksum:
            return f"{name} has a checksum that differs from the index"
    return ""


def _list_files(shard):
    """Return the arguments of `open` for the offsets of a shard, and for it."""
    offsets = form.offsets_path(shard["file"]).name
    count = shard.get("rows", shard["records"])
    most = count * form.OFFSETS.itemsize + _LARGEST_HEAD
    return (
        (offsets, shard["offsets_sha256"], 0, most),
        (shard["file"], shard["sha256"], shard["bytes"], shard["bytes"]),
    )


def _unreadable(records, samples):
    """Return offsets of records without bytes: others keep their numbers."""
    rows = np.zeros(records, form.OFFSETS)
    rows["samples"] = 1
    rows["samples"][:1] += samples - records
    return rows


def _starts(counts):
    return np.concatenate([[0], np.cumsum(counts, dtype="int64")])


def _part_with(starts, number, what):
    """Return the part that has a number, of parts that begin at `starts`."""
    if not 0 <= number < starts[-1]:
        raise IndexError(
            f"{what} are numbered 0 to {starts[-1] - 1}. Received: {number}"
        )
    return int(np.searchsorted(starts, number, "right")) - 1


class Cached:
    """Calls a function, and caches its last results.

    A thread waits while another one computes.

    Args:
        function: callable of hashable arguments; picklable if this is pickled.
        count: int, how many results are cached.
    """

    def __init__(self, function, count):
        self._given = function, count
        self._cached = functools.lru_cache(count)(function)
        self._lock = threading.Lock()

    def __call__(self, *arguments):
        with self._lock:
            return self._cached(*arguments)

    def __reduce__(self):
        return Cached, self._given
