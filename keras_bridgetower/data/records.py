"""Records by position: any sample of a data set, read when it is asked for."""

import collections
import dataclasses
import os
import pathlib
import threading
import zlib

import numpy as np

from keras_bridgetower.data import record_format as form
from keras_bridgetower.data.record_format import Draft as Draft
from keras_bridgetower.data.record_format import Record as Record
from keras_bridgetower.data.record_format import Sample as Sample
from keras_bridgetower.data.record_writer import damage
from keras_bridgetower.data.record_writer import in_processes as in_processes
from keras_bridgetower.data.record_writer import write_shards as write_shards


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


def open_records(folder, split):
    """Open a split that `write_shards` wrote.

    Args:
        folder: path of the data set.
        split: str.

    Returns:
        `RecordReader`.

    Raises:
        ValueError: no data set, no such split, one that is not finished, of
            another schema, or whose files are missing or cut.

    Example:

    ```python
    record = Record("0", (), (Sample("0", "It rained."),), "own")
    write_shards(
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
    return RecordReader(folder, split, index)


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
    """

    def __init__(self, folder, split, index):
        self.folder = pathlib.Path(folder)
        self.split = split
        self.task = index["task"]
        self.labels = index["labels"]
        entry = index["splits"][split]
        self.definition = entry["definition"]
        self.shards = entry["shards"]
        self.sources = collections.Counter()
        for shard in self.shards:
            self.sources.update(shard["sources"])
        self.sources = dict(self.sources)
        self._offsets = [self._load_offsets(shard) for shard in self.shards]
        self._first_record = _starts(map(len, self._offsets))
        self._first_sample = _starts(
            count for rows in self._offsets for count in rows["samples"]
        )
        self.num_records = int(self._first_record[-1])
        self.num_samples = int(self._first_sample[-1])
        if not self.num_samples:
            raise ValueError(
                f"The split of {folder} is empty. Received: split={split!r}"
            )
        self._handles = {}
        self._lock = threading.Lock()

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
        data = os.pread(self._handle(shard), length, offset)
        path = str(self.folder / self.shards[shard]["file"])
        if zlib.crc32(data) != crc:
            reason = "its sum is wrong" if len(data) == length else "it is cut"
            raise DamagedRecord(path, row, _key(data), reason)
        return form.decode(data)

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

    def _handle(self, shard):
        # Opened when first read: a process may hold few files at a time.
        with self._lock:
            if shard not in self._handles:
                path = self.folder / self.shards[shard]["file"]
                self._handles[shard] = os.open(path, os.O_RDONLY)
            return self._handles[shard]

    def _load_offsets(self, shard):
        path = self.folder / shard["file"]
        try:
            size = path.stat().st_size
            rows = np.load(form.offsets_path(path), allow_pickle=False)
            counts = len(rows), int(rows["samples"].sum())
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise ValueError(
                f"Shard {path} cannot be opened ({error}). "
                "tools/build_dataset.py build writes it again. Received: "
                f"split={self.split!r}"
            ) from error
        told = shard["bytes"], shard["records"], shard["samples"]
        if (size, *counts) != told:
            raise ValueError(
                f"Shard {path} is not the one of the index: bytes, records "
                f"and samples must be {told}. Received: {(size, *counts)}. "
                "tools/build_dataset.py build writes it again."
            )
        return rows

    def __getstate__(self):
        state = dict(vars(self), _handles={})
        del state["_lock"]
        return state

    def __setstate__(self, state):
        vars(self).update(state, _lock=threading.Lock())

    def __del__(self):
        for handle in vars(self).get("_handles", {}).values():
            os.close(handle)


def _starts(counts):
    return np.cumsum([0, *counts], dtype="int64")


def _key(data):
    try:
        return form.decode(data).key
    except Exception:  # any: the bytes are arbitrary
        return None
