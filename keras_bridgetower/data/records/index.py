"""Reads, checks and seals `index.json`, the list of a data set's shards."""

import hashlib
import json
import pathlib
import re

from keras_bridgetower.checks import is_integer
from keras_bridgetower.data.records.format import SCHEMA_VERSION
from keras_bridgetower.files import read_json

INDEX = "index.json"
# Maximum size in bytes; the index of a million shards is smaller.
_LARGEST_INDEX = 500_000_000
# Maximum number of records in a shard (1,000 by default), and other counts.
# Without them an index without a seal could make a reader allocate all memory.
_MOST_RECORDS = 10**7
_LARGEST = 10**15
_SEAL = "seal"
# Errors of reading values that are missing or of another type.
OF_OTHER_CONTENT = (ValueError, KeyError, TypeError, AttributeError)


def read_index(folder):
    """Read the `index.json` of a data set.

    Args:
        folder: path of a data set.

    Returns:
        dict with `schema_version`, `task`, `labels`, `splits`.

    Raises:
        ValueError: the folder or the index is missing, or the index is
            damaged or has another schema version.
    """
    path = pathlib.Path(folder) / INDEX
    try:
        index = read_json(path, _LARGEST_INDEX)
        _check(index)
    except (OSError, *OF_OTHER_CONTENT) as error:
        raise ValueError(
            f"{path} must be the index of a data set, unchanged. Fetch it "
            f"again, or build the data set again. Received: {error!r:.500}"
        ) from error
    return index


def sealed(index):
    """Return a copy of an index with a checksum of its content, the seal."""
    content = {k: v for k, v in index.items() if k != _SEAL}
    text = json.dumps(content, sort_keys=True).encode()
    return {**content, _SEAL: hashlib.sha256(text).hexdigest()}


def _check(index):
    """Raise if an index is damaged.

    An index of an earlier version has no seal, but its values are checked.
    """
    entries = index["splits"].values()
    shards = [shard for entry in entries for shard in entry["shards"]]
    versions = {part["schema_version"] for part in (index, *shards)}
    if versions != {SCHEMA_VERSION}:
        raise ValueError(f"schema versions {versions}")
    texts = [
        index["task"],
        *index["labels"],
        *(e["definition"] for e in entries),
    ]
    counts = [entry["num_shards"] for entry in entries]
    for shard in shards:
        texts += (shard[k] for k in ("file", "sha256", "offsets_sha256"))
        counts += (shard[k] for k in ("records", "samples", "bytes"))
        counts += shard["sources"].values()
        # No path to another folder.
        if not shard["file"].isprintable() or {*shard["file"]} & {*"/\\"}:
            raise ValueError(f"the file {shard['file']!r}")
        if not shard["records"] <= min(shard["samples"], _MOST_RECORDS):
            raise ValueError(f"the numbers of records and samples of {shard}")
    if {*map(type, texts)} != {str} or not all(map(_is_count, counts)):
        raise ValueError("texts or numbers of another type")
    if _SEAL in index and sealed(index) != index:
        raise ValueError("another sum than its seal")


def _is_count(value):
    return is_integer(value) and 0 <= value <= _LARGEST


def written(value):
    """Return the text that identifies a value in data sets and runs.

    It is the `repr`, with NumPy's integers written as Python's. If that of a
    dataclass changed, shards would be written again and runs could not
    continue: its name and those of its fields must stay.
    """
    return re.sub(r"np\.u?int\d+\((-?\d+)\)", r"\1", repr(value))


def written_without_places(value):
    """Return `written` without memory addresses: equal in all processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", written(value))
