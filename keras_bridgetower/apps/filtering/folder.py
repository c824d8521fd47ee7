"""The folder of a filter: scores, and the samples that were kept."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import tarfile

from keras_bridgetower.apps.filtering import tables
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import one_writer
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically

HEADER, RULE = "filter.json", "kept.json"
_LARGEST = 1_000_000


class FilterFolder:
    """The folder that a filter writes, one process at a time.

    Args:
        path: path of the folder, new or begun.

    Attributes:
        path: `pathlib.Path`, in full.
    """

    def __init__(self, path):
        self.path = pathlib.Path(os.path.abspath(path))

    def scores(self, shard):
        """Where the scores of a shard lie."""
        return self.path / "scores" / f"{shard.name}.parquet"

    def _kept(self, shard):
        return self.path / "kept" / f"{shard.name}.parquet"

    def _tar(self, shard):
        return self.path / "tars" / f"{shard.name}.tar"

    @contextlib.contextmanager
    def writing(self):
        """A context in which this process alone writes.

        Raises:
            ValueError: a file, a link, no folder to be in, or another process
                writes.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"OUT must be a folder. Received: {self}")
        if not self.path.parent.is_dir():
            raise ValueError(
                "OUT must lie in a folder that exists. Make it, or choose "
                f"another. Received: {self}"
            )
        check_no_link(self.path, "OUT")
        refusal = (
            "OUT must be written by one process at a time. Wait for the "
            f"other one, or write to another folder. Received: {self}"
        )
        with one_writer(f"{self.path}.lock", refusal):
            yield

    def begin(self, header):
        """Make the folder, or check that it has the same model and scores.

        Args:
            header: dict of plain values.

        Raises:
            ValueError: it has others, or holds something else.
        """
        for path in (self.path / "scores").rglob("_*"):
            # Of a process that was killed while it wrote.
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
        # The name of the preset changes no score.
        if other - {"preset"}:
            raise ValueError(
                "OUT must be of the same model and scores. Write to another "
                f"folder, or delete it. Received: {self}, in which differ: "
                f"{', '.join(sorted(other))}"
            )

    def keep(self, shards, names, by, threshold, write_tars):
        """Write the samples of each shard that reach a threshold.

        Args:
            shards: list of `Shard`, all of them scored.
            names: tuple of str, the scores.
            by: str, the score that decides.
            threshold: float; None to keep nothing.
            write_tars: bool, whether to write tars as well.

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
            path, tar, state = (
                self._kept(shard),
                self._tar(shard),
                shard.state(),
            )
            if not tables.stands(path, state):
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
        """Remove what was kept of shards that are gone."""
        known = {make(s) for s in shards for make in (self._kept, self._tar)}
        for name in ("kept", "tars"):
            for path in sorted((self.path / name).rglob("*")):
                if path.is_file() and path not in known:
                    path.unlink()

    def _read(self, name):
        """A JSON file of the folder as a dict, or None where there is none."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            found = read_json(path, _LARGEST)
            if not isinstance(found, dict):
                raise ValueError("it must be a JSON object")
        except ValueError as error:
            raise ValueError(
                f"OUT must hold a readable {name}. Remove the folder, and "
                f"filter again. Received: {self}, in which it is damaged: "
                f"{error}"
            ) from error
        return found

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
            # A shard that is cut off has no kept sample behind the cut, which
            # was told when the shard was scored.
            if not keys:
                return
