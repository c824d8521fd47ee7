"""Reads, checks and seals `index.json`, the list of a data set's shards."""

import hashlib
import json
import pathlib

from keras_bridgetower.checks import is_integer
from keras_bridgetower.data.records.format import SCHEMA_VERSION
from keras_bridgetower.files import read_json

INDEX = "index.json"
# Maximum size in bytes; the index of a million shards is smaller.
_LARGEST_INDEX = 500_000_000
# Maximum number of records in a shard (1,000 by default), and of other counts.
# Without them an index without a seal could make a reader allocate all memory.
_MOST_RECORDS = 10**7
_LARGEST = 10**15
_SEAL = "seal"
# Errors of reading values that are missing or of another type.
_OF_OTHER_CONTENT = (ValueError, KeyError, TypeError, AttributeError)


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
        problem = _problem(index)
    except (OSError, *_OF_OTHER_CONTENT) as error:
        problem = repr(error)
    if problem:
        raise ValueError(
            f"{path} must be the index of a data set, unchanged, as "
            "`keras-bridgetower data build` of this version writes it. Fetch "
            f"it again, or build the data set again. Received: {problem:.500}"
        )
    return index


def sealed(index):
    """Return a copy of an index with a checksum of its content, the seal."""
    content = {k: v for k, v in index.items() if k != _SEAL}
    text = json.dumps(content, sort_keys=True).encode()
    return {**content, _SEAL: hashlib.sha256(text).hexdigest()}


def _problem(index):
    """Describe the first problem of an index, or return `""`.

    An index of an earlier version has no seal, but its values are checked.
    """
    shards = [s for of in index["splits"].values() for s in of["shards"]]
    versions = {part["schema_version"] for part in (index, *shards)}
    if versions != {SCHEMA_VERSION}:
        return f"schema versions {sorted(versions, key=str)}"
    labels = index["labels"]
    if type(labels) is not list or not _are_texts(index["task"], *labels):
        return "its task and labels are no names"
    for split, entry in index["splits"].items():
        if not _are_texts(entry["definition"]) or not _is_count(
            entry["num_shards"], _MOST_RECORDS
        ):
            return f"split {split!r:.100} has a wrong definition or num_shards"
    for shard in shards:
        if not _is_shard(shard):
            return f"the shard {shard}"
    if _SEAL in index and sealed(index) != index:
        return "its content has another sum than its seal"
    return ""


def _is_shard(shard):
    records, samples, size = (shard[k] for k in ("records", "samples", "bytes"))
    file = shard["file"]
    return (
        _are_texts(file, shard["sha256"], shard["offsets_sha256"])
        and file.isprintable()
        and not {*file} & {*"/\\"}
        and _is_count(records, _MOST_RECORDS)
        and _is_count(samples, _LARGEST)
        and _is_count(size, _LARGEST)
        and records <= samples
        and all(_is_count(n, samples) for n in shard["sources"].values())
    )


def _are_texts(*values):
    return all(type(value) is str for value in values)


def _is_count(value, most):
    return is_integer(value) and 0 <= value <= most
