"""Checks an index of records, and seals it with a checksum of its content."""

import hashlib
import json

from keras_bridgetower.checks import is_integer

# Most records in a shard (1,000 by default), and the largest other count. So an
# index without a seal cannot make a reader allocate all memory.
_MOST_RECORDS = 10**7
_LARGEST = 10**15
_SEAL = "seal"


def sealed(index):
    """Add a checksum of an index's own content to it.

    Args:
        index: dict. A seal in it is replaced.

    Returns:
        dict, a copy of the index with its seal.
    """
    content = {k: v for k, v in index.items() if k != _SEAL}
    text = json.dumps(content, sort_keys=True).encode()
    return {**content, _SEAL: hashlib.sha256(text).hexdigest()}


def problem(index):
    """Describe what is wrong with an index; `""` if nothing is.

    Args:
        index: dict, the content of `index.json`. An index of an earlier
            version has no seal; its values are checked all the same.
    """
    if type(index["task"]) is not str:
        return "its task is no name"
    if not _are_names(index["labels"]):
        return "its labels are no list of names"
    for split, entry in index["splits"].items():
        found = _problem_of_split(entry)
        if found:
            return f"split {split!r:.100}: {found}"
    if _SEAL in index and sealed(index) != index:
        return "its content has another sum than its seal"
    return ""


def _problem_of_split(entry):
    if type(entry["definition"]) is not str:
        return "its definition is no text"
    if not _is_count(entry["num_shards"], _MOST_RECORDS):
        return f"num_shards={entry['num_shards']!r:.100}"
    for place, shard in enumerate(entry["shards"]):
        file = shard["file"]
        if (
            type(file) is not str
            or not file.isprintable()
            or {*file} & {*"/\\"}
        ):
            return f"shard {place} has the file {file!r:.100}"
        records, samples = shard["records"], shard["samples"]
        if not (
            _is_count(records, _MOST_RECORDS)
            and _is_count(samples, _LARGEST)
            and _is_count(shard["bytes"], _LARGEST)
            and records <= samples <= max(records, shard["bytes"])
        ):
            return (
                f"shard {place} has records={records!r:.100}, "
                f"samples={samples!r:.100}, bytes={shard['bytes']!r:.100}"
            )
        counts = shard["sources"].values()
        if not all(_is_count(n, samples) for n in counts):
            return f"shard {place} has sources={shard['sources']!r:.100}"
        for name in ("sha256", "offsets_sha256"):
            if type(shard[name]) is not str:
                return f"shard {place} has {name}={shard[name]!r:.100}"
    return ""


def _is_count(value, most):
    return is_integer(value) and 0 <= value <= most


def _are_names(values):
    return isinstance(values, list) and all(type(v) is str for v in values)
