"""The folder of a filter: tables of scores, and kept samples."""

import io
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
# The key of a shard's state in the metadata of its table.
_STATE = b"keras_bridgetower_state"


class FilterFolder:
    """The output folder of a filter, new or begun.

    Attributes:
        path: absolute `pathlib.Path`.
    """

    def __init__(self, path):
        self.path = pathlib.Path(os.path.abspath(path))

    def scores(self, shard):
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
        """Write the samples that reach a threshold, and return their number.

        Args:
            shards: list of `Shard`, all of them scored.
            names: tuple of str, the scores.
            by: str, the score that decides.
            threshold: float; None to keep nothing.
            write_tars: bool, True to write tars too.
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
            if not is_current(path, shard.state()):
                tar.unlink(missing_ok=True)
                self._write_kept(shard, names, by, threshold)
            kept = read_table(path, ["key"])["key"].to_pylist()
            count += len(kept)
            if write_tars and kept and not tar.exists():
                _write_whole(tar, _write_tar, shard, set(kept))
        return count

    def _write_kept(self, shard, names, by, threshold):
        """Write the rows of a shard that reach a threshold."""
        # A sample with an error has no score, and is never above.
        limit = math.inf if threshold is None else threshold
        rows = read_table(
            self.scores(shard),
            ["key", "uid", *names],
            [(by, ">=", np.float32(limit))],
        )
        _write_table(
            self._kept(shard),
            [row | {"shard": shard.name} for row in rows.to_pylist()],
            ("key", "uid", "shard"),
            names,
            shard.state(),
        )

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


def _write_whole(path, write, *args):
    """Call `write` with a temporary path, then move that file into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readers of a folder of tables skip such names.
    part = path.with_name(f"_{path.name}")
    write(part, *args)
    move_into_place(part, path)


def write_scores(path, scored, names, state):
    """Write the scores of a shard.

    Args:
        path: path of the Parquet file.
        scored: iterable of `(Sample, dict of scores)`.
        names: tuple of str, the scores.
        state: str, see `Shard.state`.
    """
    rows = [
        {"key": sample.key, "uid": sample.uid, "error": sample.error, **found}
        for sample, found in scored
    ]
    _write_table(path, rows, ("key", "uid", "error"), names, state)


def _write_table(path, rows, texts, names, state):
    """Write rows as a Parquet file with columns of texts and of scores."""
    arrow = load_extra("pyarrow", "data")
    parquet = load_extra("pyarrow.parquet", "data")
    schema = arrow.schema(
        [(name, arrow.string()) for name in texts]
        + [(name, arrow.float32()) for name in names],
        metadata={_STATE: state},
    )
    table = arrow.Table.from_pylist(rows, schema)
    _write_whole(path, lambda part: parquet.write_table(table, part))


def is_current(path, state):
    """Return True if a table exists for this state of its shard."""
    parquet = load_extra("pyarrow.parquet", "data")
    try:
        found = parquet.read_schema(path).metadata or {}
    # No such file, or a damaged one.
    except (OSError, ValueError):
        return False
    return found.get(_STATE) == state.encode()


def read_table(path, columns, filters=None):
    """Read columns of a Parquet file as a `pyarrow.Table`."""
    parquet = load_extra("pyarrow.parquet", "data")
    return parquet.read_table(path, columns=columns, filters=filters)


def share_threshold(scores, share):
    """Return the lowest score of the best share of all scores.

    Args:
        scores: iterable of float32 arrays; NaN, the score of a sample with an
            error, is ignored. All are in memory, 4 GB for a billion.
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
