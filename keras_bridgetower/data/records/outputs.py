"""Writes the files of a data set to a folder or an object store."""

import contextlib
import pathlib
import tempfile

from keras_bridgetower import files
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.places import Folder
from keras_bridgetower.data.records.places import place_of
from keras_bridgetower.data.records.read import describe_damage


class Output:
    """The files of a data set that is written.

    Args:
        folder: path, or URL in an object store, which has no lock.

    Attributes:
        place: `Folder` or `ShardStore`.
    """

    def __init__(self, folder):
        self.place, self._folder = place_of(folder), folder
        self._is_local = isinstance(self.place, Folder)
        self._before = self.names()

    def create(self):
        """Create a folder; a store has none.

        Raises:
            ValueError: it is a link.
        """
        if self._is_local:
            files.check_no_link(self._folder, "`folder`")
            self.place.path.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        """Return the path or URL of a file, for `local_copy`."""
        return f"{self._folder}/{name}"

    def locked(self):
        """Return a context in which no other process changes the index."""
        if self._is_local:
            return files.locked(self.place.path / f"{form.INDEX}.lock")
        return contextlib.nullcontext()

    def read_index(self):
        """Read the index, or return None if there is none."""
        exists = form.INDEX in self.place.names()
        return form.read_index(self._folder) if exists else None

    def has(self, shard):
        """Return True if a shard is there: in a store by its size alone."""
        if self._is_local:
            return not describe_damage(self.place, shard)
        return self._has_size(shard)

    def has_offsets(self, shard):
        """Return True if a file is older than its offsets."""
        if not self._has_size(shard):
            return False
        names = shard["file"], form.offsets_path(shard["file"]).name
        written, offsets = map(self.place.modified, names)
        if self._is_local:
            found = files.sha256(self.place.path / names[1])
            return written <= offsets and found == shard["offsets_sha256"]
        return written <= offsets

    def _has_size(self, shard):
        offsets = form.offsets_path(shard["file"]).name
        size = self._before.get(shard["file"])
        return size == shard["bytes"] and offsets in self._before

    def read(self, name):
        """Return the context of `local_copy`, with the file in it."""
        return local_copy(self.path(name), self._before[name])

    def names(self):
        """Return a dict from the names of files to their sizes."""
        found = self.place.names()
        return {name: found[name] for name in found if "/" not in name}


@contextlib.contextmanager
def local_copy(path, size=None):
    """Yield the path at which to write a shard and its offsets.

    Those of a URL are written to a temporary folder and then uploaded.

    Args:
        path: path or URL of the shard's file.
        size: int, the bytes of a shard that is to be read there, in place of
            written; None for a new one.

    Raises:
        StoreError: the store could not be read or written.
    """
    url, _, name = path.rpartition("/")
    place = place_of(url)
    if isinstance(place, Folder):
        yield pathlib.Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, name)
        if size is not None:
            place.fetch(name, copy, size)
        yield copy
        for file in pathlib.Path(folder).iterdir():
            if size is None or file != copy:
                place.write(file.name, file)
