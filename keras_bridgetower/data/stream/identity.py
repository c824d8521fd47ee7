"""Describes the sources of a stream, to recognise them when a run continues."""

import hashlib
import json


def sources(readers):
    """Describe the content of sources, independent of where their folders are.

    Args:
        readers: list of `RecordReader`.

    Returns:
        dict from `"source 0"`, `"source 1"` and so on to dicts of plain
        values.
    """
    return {f"source {i}": _source(r) for i, r in enumerate(readers)}


def _source(reader):
    # `shards` holds the checksums of the files.
    part = [reader.task, reader.labels, reader.shards]
    text = json.dumps(part, sort_keys=True).encode()
    return {
        "split": reader.split,
        "num_samples": reader.num_samples,
        "sha256": hashlib.sha256(text).hexdigest(),
    }
