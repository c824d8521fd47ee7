"""The files of a data set in a folder or an object store.

Shards of an object store are fetched as a whole into a cache on this machine,
which all of its processes share.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile
import threading
import time

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.object_stores import StoreError

# Files of the cache. No other file in its folder is deleted.
_OWN = re.compile(r"[0-9a-f]{64}\.shard(\.[0-9a-f]{32}\.part)?")
# Unfinished files that did not grow for so many seconds were left by a process
# that has ended.
_LEFT = 3600
# Files that are fetched ahead at a time.
_THREADS = 4


@dataclasses.dataclass(frozen=True)
class ShardCache:
    """The cache of shards of object stores, on this machine.

    Args:
        folder: path; None for a folder in `$KERAS_HOME`.
        most_bytes: int, size above which the files that were not used for the
            longest time are deleted. It must hold the shards of three windows
            (`Shuffled`) for each lane that this machine reads.
        seconds: float, how long to try to read a file.

    Example:

    ```python
    from keras_bridgetower import data

    cache = data.ShardCache("/scratch/shards", most_bytes=200 * 10**9)
    ```
    """

    folder: str | os.PathLike | None = None
    most_bytes: int = 50 * 10**9
    seconds: float = 600.0

    def __post_init__(self):
        check_above_zero("most_bytes", self.most_bytes)
        check_above_zero("seconds", self.seconds)


def open_place(folder, cache=None):
    """Return the place of a data set by its path or URL."""
    if object_stores.is_url(folder):
        return ShardStore(folder, cache)
    if cache is not None:
        raise ValueError(
            "`cache` is that of object stores, whose URL is such as "
            f"'s3://bucket/data'. Received: {str(folder)!r}"
        )
    return Folder(folder)


class Folder:
    """The files of a data set in a folder."""

    is_far = False

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __str__(self):
        return str(self.path)

    def names(self):
        """Return a dict from the names of files to their sizes."""
        found = {}
        for path in self.path.iterdir() if self.path.is_dir() else ():
            # Another thread may move its file into place meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[path.name] = path.stat().st_size
        return found

    def read(self, name, largest):
        """Return the bytes of a text."""
        with files.open_bytes_of_text(self.path / name) as file:
            return files.read_most(file, largest)

    def open(self, name, checksum, least, largest):
        """Open a file; its checksum and size are not compared."""
        return open(self.path / name, "rb", buffering=0)

    def read_ahead(self, wanted):
        """Do nothing: the files are there."""

    def write(self, name, content):
        """Write the bytes of a file, all or none."""
        path = self.path / name
        files.write_atomically(path, lambda file: file.write(content))

    def remove(self, names):
        """Remove files."""
        for name in names:
            (self.path / name).unlink()

    def modified(self, name):
        """Return the time at which a file was written."""
        return (self.path / name).stat().st_mtime_ns

    def create(self):
        """Make the folder, which must be no link."""
        files.check_no_link(self.path, "`folder`")
        self.path.mkdir(parents=True, exist_ok=True)

    def write_lock(self, name):
        """Return a context in which no other process writes a file."""
        return files.locked(self.path / f"{name}.lock")

    @contextlib.contextmanager
    def local_copy(self, name, size=None):
        """Yield the path of a file, as `ShardStore.local_copy`."""
        yield self.path / name


class ShardStore(object_stores.Store):
    """The files of a data set in an object store.

    Args:
        url: as `Store`.
        cache: `ShardCache`, or None for its default values.
    """

    is_far = True

    def __init__(self, url, cache=None):
        super().__init__(url, cache and cache.seconds)
        self._cache = cache or ShardCache()
        folder = files.keras_home() / "keras_bridgetower_shards"
        self._folder = pathlib.Path(self._cache.folder or folder)
        self._lock, self._ahead, self._threads = threading.Lock(), [], []

    def __reduce__(self):
        return ShardStore, (self._given, self._cache)

    def open(self, name, checksum, least, largest):
        """Open a file in the cache.

        Args:
            name: str.
            checksum: str, its SHA-256.
            least, largest: ints, its bytes.

        Raises:
            DamagedFile: the store has another file of this size.
            StoreError: it could not be fetched in time.
        """
        path = self._folder / f"{checksum}.shard"
        busy = StoreError(
            f"{self}/{name} could not be read in {self.seconds:g} s "
            "(`ShardCache.seconds`): another process or thread is fetching it"
        )
        lock = self._folder / f"{checksum[:2]}.lock"
        try:
            while True:
                # Another process may delete it in between, but not once it is
                # open.
                with contextlib.suppress(FileNotFoundError):
                    opened = open(path, "rb")
                    os.utime(opened.fileno())
                    return opened
                with files.locked(lock, self.seconds, busy):
                    if not path.exists():
                        self.fetch(name, path, largest, checksum, least)
                        self._delete_unused(path)
        except (StoreError, object_stores.DamagedFile):
            raise
        except OSError as error:
            raise StoreError(f"The cache {self._folder}: {error}") from error

    def read_ahead(self, wanted):
        """Fetch files in the background.

        Args:
            wanted: list of the arguments of `open`, those needed first in
                front. What was not begun before is not fetched any more.
        """
        with self._lock:
            if wanted == self._ahead:
                return
            self._ahead, left = wanted, collections.deque(wanted)

            def fetch():
                while left and self._ahead is wanted:
                    # Whoever needs the file gets the error.
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        self.open(*left.popleft()).close()

            self._threads = [t for t in self._threads if t.is_alive()]
            for _ in range(_THREADS - len(self._threads)):
                thread = threading.Thread(target=fetch, daemon=True)
                thread.start()
                self._threads.append(thread)

    def create(self):
        """Do nothing: a store has no folders."""

    def write_lock(self, name):
        """Return a context without a lock, which a store does not have."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def local_copy(self, name, size=None):
        """Yield a path at which to write a shard and its offsets.

        At the end of the context, all files beside it are uploaded.

        Args:
            name: str, the name of the shard.
            size: int, the bytes of a shard that is there, to read it at the
                path and not upload it again; None for a new one.

        Raises:
            StoreError: the store could not be read or written.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder, name)
            if size is not None:
                self.fetch(name, copy, size)
            yield copy
            for file in pathlib.Path(folder).iterdir():
                if size is None or file != copy:
                    self.write(file.name, file)

    def _delete_unused(self, newest):
        """Delete files until the others are small enough together."""
        found = []
        for path in self._folder.iterdir():
            # Another process may delete it, or finish it.
            with contextlib.suppress(FileNotFoundError):
                if _OWN.fullmatch(path.name):
                    state = path.lstat()
                    found.append((state.st_mtime, path, state.st_size))
        total = 0
        for changed, path, size in sorted(found, reverse=True):
            total += size
            if path.suffix == ".part":
                unused = time.time() - changed > _LEFT
            else:
                unused = total > self._cache.most_bytes and path != newest
            if unused:
                path.unlink(missing_ok=True)
