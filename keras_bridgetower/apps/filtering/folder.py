"""The folder of a filter: tables of scores, and kept samples."""

import contextlib
import io
import itertools
import json
import math
import os
import pathlib
import shutil
import tarfile

import numpy as np

from keras_bridgetower.apps.predict.output import check_begun
from keras_bridgetower.apps.predict.output import check_same
from keras_bridgetower.checks import load_extra
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically

HEADER, RULE = "filter.json", "kept.json"
_LARGEST = 1_000_000
# Rows in memory before they are written.
_ROWS = 10_000
# The key of a shard's state in the metadata of its table.
_STATE = b"keras_bridgetower_state"


class FilterFolder:
    """The output folder of a filter, written by one process at a time.

    Args:
        path: path of the folder, new or begun.

    Attributes:
        path: absolute `pathlib.Path`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(os.path.abspath(path))

    def scores(self, shard):
        """Return the path of the scores of a shard."""
        return self.path / "scores" / f"{shard.name}.parquet"

    def _kept(self, shard):
        return self.path / "kept" / f"{shard.name}.parquet"

    def _tar(self, shard):
        return self.path / "tars" / f"{shard.name}.tar"

    def begin(self, header):
        """Create the folder, or check that its model and scores are the same.

        Args:
            header: dict of plain values.

        Raises:
            ValueError: they differ, or it is another kind of folder.
        """
        found = self._read(HEADER)
        if found is None:
            self.path.mkdir(exist_ok=True)
            check_begun(os.listdir(self.path), HEADER, self.path)
            self._write(HEADER, header)
            return
        # The preset's name does not change scores.
        needed = {k: v for k, v in header.items() if k != "preset"}
        check_same(found, needed, self.path)

    def keep(self, shards, names, by, threshold, write_tars):
        """Write the samples of each shard that reach a threshold.

        Args:
            shards: list of `Shard`, all of them scored.
            names: tuple of str, the scores.
            by: str, the score that decides.
            threshold: float; None to keep nothing.
            write_tars: bool, True to write tars too.

        Returns:
            int, the number of samples.
        """
        rule = {"by": by, "threshold": threshold}
        if self._read(RULE) != rule:
            for name in ("kept", "tars"):
                shutil.rmtree(self.path / name, ignore_errors=True)
            self._write(RULE, rule)
        self._remove_others(shards)
        count = 0
        for shard in shards:
            path, tar = self._kept(shard), self._tar(shard)
            state = shard.state()
            if not is_current(path, state):
                tar.unlink(missing_ok=True)
                self._write_kept(shard, names, by, threshold)
            kept = [
                key for some in batches(path, ("key",)) for key in some["key"]
            ]
            count += len(kept)
            if write_tars and kept and not tar.exists():
                with whole_file(tar) as part:
                    _write_tar(part, shard, set(kept))
        return count

    def _write_kept(self, shard, names, by, threshold):
        """Write the rows of a shard that reach a threshold."""
        pyarrow, _ = parquet()
        limit = math.inf if threshold is None else threshold
        path, texts = self._kept(shard), ("key", "uid", "shard")
        with _writer(path, texts, names, shard.state()) as writer:
            for some in batches(self.scores(shard), ("key", "uid", *names)):
                # The NaN of a sample with an error is never above.
                chosen = some[by] >= limit
                columns = {
                    name: values[chosen] for name, values in some.items()
                }
                columns["shard"] = [shard.name] * int(chosen.sum())
                writer.write_table(pyarrow.table(columns, writer.schema))

    def _remove_others(self, shards):
        """Remove the kept samples of deleted shards."""
        known = {path(s) for s in shards for path in (self._kept, self._tar)}
        for name in ("kept", "tars"):
            for path in sorted((self.path / name).rglob("*")):
                if path.is_file() and path not in known:
                    path.unlink()

    def _read(self, name):
        """Read a JSON file of the folder as a dict, or return None."""
        try:
            return read_json(self.path / name, _LARGEST)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"OUT must hold a readable {name}. Remove the folder, and "
                f"filter again. Received: {str(self.path)!r}, which is "
                f"damaged: {error}"
            ) from error

    def _write(self, name, value):
        text = json.dumps(value, indent=2) + "\n"
        write_atomically(
            self.path / name, lambda file: file.write(text.encode())
        )


def _write_tar(path, shard, keys):
    """Copy the files of some samples of a shard into a new tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, files in shard.grouped():
            if key not in keys:
                continue
            for name, size, read in files:
                member = tarfile.TarInfo(name)
                member.size = size
                tar.addfile(member, io.BytesIO(read()))
            keys.remove(key)
            # A truncated shard has no kept sample after the end.
            if not keys:
                return


def parquet():
    """Import `pyarrow` and `pyarrow.parquet`, or raise ImportError."""
    files = load_extra("pyarrow.parquet", "data")
    return load_extra("pyarrow", "data"), files


@contextlib.contextmanager
def whole_file(path):
    """Yield a path whose file is moved into place at the end of the context."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readers of a folder of tables skip such names.
    part = path.with_name(f"_{path.name}")
    yield part
    move_into_place(part, path)


def write_scores(path, scored, names, state):
    """Write the scores of a shard.

    Args:
        path: path of the Parquet file.
        scored: iterable of `(Sample, dict of scores)`.
        names: tuple of str, the scores.
        state: str, see `Shard.state`.
    """
    pyarrow, _ = parquet()
    rows = (
        {"key": sample.key, "uid": sample.uid, "error": sample.error, **found}
        for sample, found in scored
    )
    with _writer(path, ("key", "uid", "error"), names, state) as writer:
        while some := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(some, writer.schema))


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
    _, files = parquet()
    try:
        found = files.read_schema(path).metadata or {}
    # No such file, or a damaged one.
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
