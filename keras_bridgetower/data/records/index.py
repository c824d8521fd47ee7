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
    if not path.is_file():
        raise ValueError(
            "A data set is a folder with an index.json, as "
            "`keras-bridgetower data build` writes it; there is none "
            f"here. Received: folder={str(folder)!r}"
        )
    try:
        index = read_json(path, _LARGEST_INDEX)
        shards = [
            s for split in index["splits"].values() for s in split["shards"]
        ]
        versions = {part["schema_version"] for part in (index, *shards)}
        problem = _problem(index)
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


def sealed(index):
    """Return a copy of an index with a checksum of its content, the seal."""
    content = {k: v for k, v in index.items() if k != _SEAL}
    text = json.dumps(content, sort_keys=True).encode()
    return {**content, _SEAL: hashlib.sha256(text).hexdigest()}


def _problem(index):
    """Describe the first problem of an index, or return `""`.

    An index of an earlier version has no seal, but its values are checked.
    """
    if type(index["task"]) is not str:
        return "its task is no name"
    labels = index["labels"]
    if type(labels) is not list or not all(type(x) is str for x in labels):
        return "its labels are no list of names"
    for split, entry in index["splits"].items():
        found = _split_problem(entry)
        if found:
            return f"split {split!r:.100}: {found}"
    if _SEAL in index and sealed(index) != index:
        return "its content has another sum than its seal"
    return ""


def _split_problem(entry):
    if type(entry["definition"]) is not str:
        return "its definition is no text"
    if not _is_count(entry["num_shards"], _MOST_RECORDS):
        return f"num_shards={entry['num_shards']!r:.100}"
    for place, shard in enumerate(entry["shards"]):
        found = _shard_problem(shard)
        if found:
            return f"shard {place} has {found}"
    return ""


def _shard_problem(shard):
    file, counts = shard["file"], shard["sources"].values()
    records, samples, size = (shard[k] for k in ("records", "samples", "bytes"))
    if type(file) is not str or not file.isprintable() or {*file} & {*"/\\"}:
        return f"the file {file!r:.100}"
    if not (
        _is_count(records, _MOST_RECORDS)
        and _is_count(samples, _LARGEST)
        and _is_count(size, _LARGEST)
        and records <= samples <= max(records, size)
    ):
        return (
            f"records={records!r:.100}, samples={samples!r:.100}, "
            f"bytes={size!r:.100}"
        )
    if not all(_is_count(n, samples) for n in counts):
        return f"sources={shard['sources']!r:.100}"
    for name in ("sha256", "offsets_sha256"):
        if type(shard[name]) is not str:
            return f"{name}={shard[name]!r:.100}"
    return ""


def _is_count(value, most):
    return is_integer(value) and 0 <= value <= most
