"""The folder of a filter: scores and kept samples."""

import io
import json
import os
import pathlib
import shutil
import tarfile

from keras_bridgetower.apps.filtering import tables
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically

HEADER, RULE = "filter.json", "kept.json"
_LARGEST = 1_000_000


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
        for path in (self.path / "scores").rglob("_*"):
            # Left by a process that was killed.
            if tables.is_part(path):
                path.unlink()
        found = self._read(HEADER)
        if found is None:
            if self.path.exists() and any(self.path.iterdir()):
                raise ValueError(
                    "OUT must be a new or empty folder, or one that this "
                    f"command has begun, with a {HEADER}. "
                    f"Received: {self}, which holds other files"
                )
            self.path.mkdir(exist_ok=True)
            self._write(HEADER, header)
            return
        other = {k for k, v in header.items() if found.get(k) != v}
        # The preset's name does not change scores.
        if other - {"preset"}:
            raise ValueError(
                "OUT must be of the same model and scores. Write to another "
                f"folder, or delete it. Received: {self}, differing in: "
                f"{', '.join(sorted(other))}"
            )

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
            if not tables.is_current(path, state):
                tar.unlink(missing_ok=True)
                tables.write_kept(
                    *(path, shard.name, self.scores(shard)),
                    *(names, by, threshold, state),
                )
            kept = [
                key
                for some in tables.batches(path, ("key",))
                for key in some["key"]
            ]
            count += len(kept)
            if write_tars and kept and not tar.exists():
                with tables.whole_file(tar) as part:
                    _write_tar(part, shard, set(kept))
        return count

    def _remove_others(self, shards):
        """Remove the kept samples of deleted shards."""
        known = {path(s) for s in shards for path in (self._kept, self._tar)}
        for name in ("kept", "tars"):
            for path in sorted((self.path / name).rglob("*")):
                if path.is_file() and path not in known:
                    path.unlink()

    def _read(self, name):
        """Read a JSON file of the folder as a dict, or return None."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return read_json(path, _LARGEST)
        except ValueError as error:
            raise ValueError(
                f"OUT must hold a readable {name}. Remove the folder, and "
                f"filter again. Received: {self}, where it is damaged: "
                f"{error}"
            ) from error

    def _write(self, name, value):
        text = json.dumps(value, indent=2) + "\n"
        write_atomically(
            self.path / name, lambda file: file.write(text.encode())
        )

    def __str__(self):
        return repr(str(self.path))


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
