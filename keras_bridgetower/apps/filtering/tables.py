"""The tables of a filter: scores of each shard, and what was kept of it."""

import contextlib
import math
import os
import pathlib
import uuid

from keras_bridgetower.files import move_into_place

# Rows that are held before they are written.
_ROWS = 10_000
# Where the state of a shard stands among the metadata of its table.
_STATE = b"keras_bridgetower_state"
# What the name of a file has that is not whole yet.
_PART = ".part"


def parquet():
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ImportError: pyarrow is not installed.
    """
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
    """The path of a file that takes its place once the context has ended."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"_{uuid.uuid4().hex}{_PART}-{path.name}")
    try:
        yield part
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_part(path):
    """Whether a file is one that `whole_file` has not finished."""
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
        # As exact as the model makes them.
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


def stands(path, state):
    """Whether a shard's table of scores is there, and of this state."""
    if not os.path.exists(path):
        return False
    _, files = parquet()
    try:
        found = files.read_schema(path).metadata or {}
    except (OSError, ValueError):
        return False
    return found.get(_STATE) == state.encode()


def batches(path, columns):
    """Iterate over parts of a table, as dicts from column to NumPy array."""
    _, files = parquet()
    with files.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield {
                name: batch.column(name).to_numpy(zero_copy_only=False)
                for name in columns
            }


def write_kept(path, shard, scores_path, names, by, threshold, state):
    """Write the rows of a shard whose score reaches a threshold.

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
            # NaN, where a sample has an error, is never above.
            chosen = some[by] >= limit
            columns = {name: values[chosen] for name, values in some.items()}
            columns["shard"] = [shard] * int(chosen.sum())
            writer.write_table(pyarrow.table(columns, schema))
