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
    with _writer(path, ("key", "uid", "error"), names, state) as writer:
        rows = []
        for sample, found in scored:
            row = {"key": sample.key, "uid": sample.uid, "error": sample.error}
            rows.append({**row, **found})
            if len(rows) == _ROWS:
                _write_rows(writer, rows)
                rows = []
        _write_rows(writer, rows)


def _write_rows(writer, rows):
    pyarrow, _ = parquet()
    writer.write_table(pyarrow.Table.from_pylist(rows, writer.schema))


@contextlib.contextmanager
def _writer(path, texts, names, state):
    """Open a table with columns of texts and of scores for writing."""
    pyarrow, files = parquet()
    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in texts]
        + [(name, pyarrow.float32()) for name in names],
        metadata={_STATE: state.encode()},
    )
    with whole_file(path) as part, files.ParquetWriter(part, schema) as writer:
        yield writer


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
    pyarrow, _ = parquet()
    limit = math.inf if threshold is None else threshold
    with _writer(path, ("key", "uid", "shard"), names, state) as writer:
        for some in batches(scores_path, ("key", "uid", *names)):
            # The NaN of a sample with an error is never above.
            chosen = some[by] >= limit
            columns = {name: values[chosen] for name, values in some.items()}
            columns["shard"] = [shard] * int(chosen.sum())
            writer.write_table(pyarrow.table(columns, writer.schema))


def share_threshold(scores, share):
    """Find the lowest score of the best share of all scores, exactly.

    Args:
        scores: iterable of float32 arrays; NaN is ignored. All are in memory,
            4 GB for a billion.
        share: float above 0 and up to 1. The number of scores is rounded, and
            at least 1.

    Returns:
        float, or None if there is no score. With ties, more scores than the
        share may reach it.
    """
    found = [some[~np.isnan(some)] for some in scores]
    found = np.concatenate(found or [np.empty(0, "float32")])
    if not len(found):
        return None
    rank = len(found) - max(1, math.floor(share * len(found) + 0.5))
    found.partition(rank)
    return float(found[rank])
