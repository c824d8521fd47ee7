"""Write the files of a data set to a folder or an object store."""

import contextlib
import os
import pathlib
import tempfile

from keras_bridgetower import files
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.places import LocalFolder
from keras_bridgetower.data.records.places import StoreError
from keras_bridgetower.data.records.places import place_of
from keras_bridgetower.data.records.read import describe_damage
from keras_bridgetower.object_stores import open_store


def open_output(folder):
    """Return the output of a data set by its path or URL."""
    place = place_of(folder)
    if isinstance(place, LocalFolder):
        return FolderOutput(place.folder)
    return StoreOutput(str(place))


class FolderOutput:
    """The files of a data set in a folder."""

    def __init__(self, folder):
        self._folder = folder

    def create(self):
        """Create the folder.

        Raises:
            ValueError: it is a link.
        """
        files.check_no_link(self._folder, "`folder`")
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        """Return the path or URL of a file, for `written`."""
        return str(self._folder / name)

    def locked(self):
        """Return a context in which no other process changes the index."""
        return files.locked(self._folder / f"{form.INDEX}.lock")

    def read_index(self):
        """Read the index, or return None if there is none."""
        exists = (self._folder / form.INDEX).exists()
        return form.read_index(self._folder) if exists else None

    def write_index(self, data):
        """Write the bytes of the index, all or none."""
        path = self._folder / form.INDEX
        files.write_atomically(path, lambda file: file.write(data))

    def has(self, shard):
        """Return True if a shard of the index is there, undamaged."""
        return not describe_damage(LocalFolder(self._folder), shard)

    def has_offsets(self, shard):
        """Return True if a tar file is older than its offsets, both whole."""
        path = self._folder / shard["file"]
        offsets, state = form.offsets_path(path), path.stat()
        return (
            shard["bytes"] == state.st_size
            and offsets.is_file()
            and state.st_mtime_ns <= offsets.stat().st_mtime_ns
            and shard["offsets_sha256"] == files.sha256(offsets)
        )

    @contextlib.contextmanager
    def read(self, name):
        """Yield the path at which to read a tar file and write its offsets."""
        yield self._folder / name

    def names(self):
        """Return the names of all files."""
        return [path.name for path in self._folder.glob("*")]

    def remove(self, name):
        """Remove a file."""
        (self._folder / name).unlink()


class StoreOutput:
    """The files of a data set in an object store, which has no lock."""

    def __init__(self, url):
        self._url = url
        self._store, root = open_store(url)
        self._root = root.rstrip("/")
        self._before = self._sizes()

    def create(self):
        """Do nothing: a store has no folders."""

    def path(self, name):
        return f"{self._url}/{name}"

    def locked(self):
        return contextlib.nullcontext()

    def read_index(self):
        with _errors(self._url):
            self._store.invalidate_cache()
            exists = self._store.exists(f"{self._root}/{form.INDEX}")
        return form.read_index(self._url) if exists else None

    def write_index(self, data):
        with _errors(self._url):
            self._store.pipe_file(f"{self._root}/{form.INDEX}", data)

    def has(self, shard):
        """Return True if a shard was there, of its size: it is not read."""
        offsets = form.offsets_path(shard["file"]).name
        size = self._before.get(shard["file"])
        return size == shard["bytes"] and offsets in self._before

    def has_offsets(self, shard):
        """Return True if a tar file is older than its offsets, by its size."""
        if not self.has(shard):
            return False
        names = shard["file"], form.offsets_path(shard["file"]).name
        with _errors(self._url):
            tar, offsets = (
                self._store.modified(f"{self._root}/{name}") for name in names
            )
        return tar <= offsets

    @contextlib.contextmanager
    def read(self, name):
        """Yield the path of a copy; the offsets beside it are uploaded."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, name)
            with _errors(self._url):
                self._store.get_file(f"{self._root}/{name}", str(path))
            yield path
            path.unlink()
            _upload(folder, self._url)

    def names(self):
        return [*self._sizes()]

    def remove(self, name):
        with _errors(self._url):
            self._store.rm_file(f"{self._root}/{name}")

    def _sizes(self):
        with _errors(self._url):
            self._store.invalidate_cache()
            found = self._store.find(self._root, detail=True)
        return {
            path[len(self._root) + 1 :]: entry["size"]
            for path, entry in found.items()
        }


@contextlib.contextmanager
def written(path):
    """Yield the path at which to write a shard and its offsets.

    Those of a URL are written to a temporary folder and then uploaded.

    Args:
        path: path or URL of the shard's file, as `path` returned it.

    Raises:
        StoreError: the store could not be written.
    """
    if "://" not in path:
        yield path
        return
    url, name = path.rsplit("/", 1)
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, name)
        _upload(folder, url)


def _upload(folder, url):
    with _errors(url):
        store, root = open_store(url)
        for file in pathlib.Path(folder).iterdir():
            store.put_file(str(file), f"{root.rstrip('/')}/{file.name}")


@contextlib.contextmanager
def _errors(url):
    try:
        yield
    # Libraries of stores raise errors of many types.
    except Exception as error:
        raise StoreError(
            f"{url} could not be read or written: {type(error).__name__}: "
            f"{error!s:.300}"
        ) from error
