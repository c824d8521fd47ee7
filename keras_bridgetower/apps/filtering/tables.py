"""The tables of a filter: scores and kept samples of each shard."""

import contextlib
import math
import os
import pathlib
import uuid

import numpy as np

from keras_bridgetower.files import move_into_place

# Rows in memory before they are written.
_ROWS = 10_000
# The key of a shard's state in the metadata of its table.
_STATE = b"keras_bridgetower_state"
# Part of the name of an unfinished file.
_PART = ".part"


def parquet():
    """Import `pyarrow` and `pyarrow.parquet`, or raise ImportError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Tables of Parquet need the package 'pyarrow': "
            "pip install 'keras-bridgetower[data]'"
        ) from error
    return pyarrow, pyarrow.parquet


@contextlib.contextmanager
def whole_file(path):
    """Yield a path whose file is moved into place at the end of the context."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"_{uuid.uuid4().hex}{_PART}-{path.name}")
    try:
        yield part
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_part(path):
    """Return True for an unfinished file of `whole_file`."""
    return path.name[33:].startswith(_PART)


def write_scores(path, scored, names, state):
    """Write the scores of a shard.

    Args:
        path: path of the Parquet file.
        scored: iterable of `(Sample, dict of scores)`.
        names: tuple of str, the scores.
        state: str, see `Shard.state`.
    """
    pyarrow, files = parquet()
    texts = ("key", "uid", "error")
    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in texts]
        + [(name, pyarrow.float32()) for name in names],
        metadata={_STATE: state.encode()},
    )
    with whole_file(path) as part, files.ParquetWriter(part, schema) as writer:
        rows = []
        for sample, found in scored:
            row = {"key": sample.key, "uid": sample.uid, "error": sample.error}
            rows.append({**row, **found})
            if len(rows) == _ROWS:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def is_current(path, state):
    """Return True if a table exists for this state of its shard."""
    if not os.path.exists(path):
        return False
    _, files = parquet()
    try:
        found = files.read_schema(path).metadata or {}
    except (OSError, ValueError):
        return False
    return found.get(_STATE) == state.encode()


def batches(path, columns):
    """Iterate over parts of a table, dicts from column to NumPy array."""
    _, files = parquet()
    with files.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield {
                name: batch.column(name).to_numpy(zero_copy_only=False)
                for name in columns
            }


def write_kept(path, shard, scores_path, names, by, threshold, state):
    """Write the rows of a shard that reach a threshold.

    Args:
        path: path of the Parquet file.
        shard: str, name of the shard.
        scores_path: path of its table of scores.
        names: tuple of str, the scores.
        by: str, the score that decides.
        threshold: float; None to keep nothing.
        state: str, see `Shard.state`.
    """
    pyarrow, files = parquet()
    texts = ("key", "uid", "shard")
    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in texts]
        + [(name, pyarrow.float32()) for name in names],
        metadata={_STATE: state.encode()},
    )
    limit = math.inf if threshold is None else threshold
    with whole_file(path) as part, files.ParquetWriter(part, schema) as writer:
        for some in batches(scores_path, ("key", "uid", *names)):
            # The NaN of a sample with an error is never above.
            chosen = some[by] >= limit
            columns = {name: values[chosen] for name, values in some.items()}
            columns["shard"] = [shard] * int(chosen.sum())
            writer.write_table(pyarrow.table(columns, schema))


_HALF = 16


def share_threshold(scores, share):
    """Find the lowest score of the best share of all scores, exactly.

    Reads all scores twice and keeps none in memory: the first pass finds the
    upper half of the bits of the score, the second pass the lower half.

    Args:
        scores: callable that returns an iterator of float32 arrays; NaN is
            ignored.
        share: float above 0 and up to 1. The number of scores is rounded, and
            at least 1.

    Returns:
        float, or None if there is no score. With ties, more scores than the
        share may reach it.
    """
    upper = _counts(ordered >> _HALF for ordered in _all(scores))
    total = int(upper.sum())
    if not total:
        return None
    wanted = max(1, math.floor(share * total + 0.5))
    first, wanted = _place(upper, wanted)
    lower = _counts(
        ordered[ordered >> _HALF == first] & (2**_HALF - 1)
        for ordered in _all(scores)
    )
    last, _ = _place(lower, wanted)
    return float(_to_score(np.uint32(first << _HALF | last)))


def _all(scores):
    """Yield scores as integers of the same order."""
    for some in scores():
        some = np.asarray(some, "float32")
        # -0.0 equals 0.0.
        bits = (some[~np.isnan(some)] + np.float32(0)).view("uint32")
        yield np.where(bits >> 31, ~bits, bits | np.uint32(2**31))


def _to_score(ordered):
    bits = ordered ^ np.uint32(2**31) if ordered >> 31 else ~ordered
    return np.uint32(bits).view("float32")


def _counts(halves):
    counts = np.zeros(2**_HALF, "int64")
    for half in halves:
        counts += np.bincount(half, minlength=2**_HALF)
    return counts


def _place(counts, wanted):
    """Return the value at a rank from the top, and its rank among equals."""
    above = np.cumsum(counts[::-1])
    step = int(np.searchsorted(above, wanted))
    before = int(above[step - 1]) if step else 0
    return len(counts) - 1 - step, wanted - before
