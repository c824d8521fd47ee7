"""What decides the batches of a stream, as values that a run can save."""

import hashlib
import json


def sources(readers):
    """What the sources are, wherever their folders lie.

    Args:
        readers: list of `RecordReader`.

    Returns:
        dict from `"source 0"` and so on to dicts of plain values.
    """
    return {f"source {i}": _source(r) for i, r in enumerate(readers)}


def _source(reader):
    # The shards have the sums of their files in the index.
    part = [reader.task, reader.labels, reader.shards]
    text = json.dumps(part, sort_keys=True).encode()
    return {
        "split": reader.split,
        "num_samples": reader.num_samples,
        "sha256": hashlib.sha256(text).hexdigest(),
    }
