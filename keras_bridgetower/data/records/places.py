"""Where the files of a data set are: in a folder, or in an object store.

Shards of an object store are fetched as a whole into a cache on this machine,
which all of its processes share.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import threading
import time
import uuid

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import load_extra
from keras_bridgetower.files import keras_home
from keras_bridgetower.files import locked
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most
from keras_bridgetower.files import sha256

# Seconds before the second try; twice as many before each further one.
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# End of the names of unfinished files, and seconds until they count as left.
PART, _UNFINISHED = ".part", 86_400
# Times that a file may come with another checksum: bodies are cut on the way.
_MOST_DAMAGED = 4


class StoreError(OSError):
    """Raised if an object store does not give a file in time."""


class DamagedFile(ValueError):
    """Raised if a file has another checksum than the index, at each try."""


@dataclasses.dataclass(frozen=True)
class ShardCache:
    """The cache of shards of object stores, on this machine.

    Args:
        folder: path; None for a folder in `$KERAS_HOME`.
        most_bytes: int, size above which the files that were fetched first are
            deleted. It must hold the shards of two windows (`Shuffled`), for
            each stream that reads at a time.
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

    @property
    def place(self):
        """`pathlib.Path` of the folder."""
        folder = self.folder or keras_home() / "keras_bridgetower/shards"
        return pathlib.Path(folder)

    def keep(self, file, fetch):
        """Return an open file of the cache, fetched unless it is there.

        Args:
            file: str, its name there. Files of one name have one content.
            fetch: function of a path, which writes the whole file or none.
        """
        path = self.place / file
        while True:
            # Another process may delete it in between, but not once it is open.
            try:
                return open(path, "rb")
            except FileNotFoundError:
                with locked(path.with_name(f"{file}.lock")):
                    if not path.exists():
                        fetch(path)
                with locked(self.place / "all.lock"):
                    self._delete_oldest(path)

    def _delete_oldest(self, newest):
        """Delete files until the others are small enough together."""
        found = []
        with os.scandir(self.place) as entries:
            for entry in entries:
                # Another process may remove its unfinished file.
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat()
                    found.append((state.st_mtime, entry.path, state.st_size))
        total = sum(size for *_, size in found)
        for changed, path, size in sorted(found):
            # Unfinished files of processes that were killed are old.
            unfinished = path.endswith((".lock", PART))
            if unfinished and time.time() - changed < _UNFINISHED:
                continue
            if total <= self.most_bytes or path == str(newest):
                break
            pathlib.Path(path).unlink(missing_ok=True)
            total -= size


class LocalFolder:
    """The files of a data set in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def __str__(self):
        return str(self.folder)

    def read(self, name, largest, checksum=None):
        """Return the bytes of a file; its checksum is not compared."""
        with open_regular(self.folder / name) as file:
            return read_most(file, largest)

    def open(self, name, checksum):
        """Open a file; its checksum is not compared."""
        return open(self.folder / name, "rb", buffering=0)

    def checksum(self, name):
        """Return the SHA-256 of a file, or None if there is none."""
        path = self.folder / name
        return sha256(path) if path.is_file() else None

    def sizes(self):
        """Return a dict from the names of files to their sizes."""
        with os.scandir(self.folder) as entries:
            return {e.name: e.stat().st_size for e in entries if e.is_file()}


class ObjectStore:
    """The files of a data set in an object store, by fsspec.

    Credentials are those of the platform: environment variables, files and
    services that the libraries of the store know.

    Args:
        url: str, such as `"s3://bucket/data"`, `"gs://..."`, `"https://..."`.
        cache: `ShardCache`.
    """

    def __init__(self, url, cache):
        fsspec = load_extra("fsspec", "object_stores")
        self._url, self._cache = str(url).rstrip("/"), cache
        self._files, self._root = fsspec.core.url_to_fs(self._url)
        self._ahead, self._thread = [], None

    def __str__(self):
        return self._url

    def __reduce__(self):
        return ObjectStore, (self._url, self._cache)

    def read(self, name, largest, checksum=None):
        """Return the bytes of a file, with a checksum by the cache."""
        if checksum is not None:
            with self.open(name, checksum) as file:
                return read_most(file, largest)
        return self._try(name, lambda: self._files.cat_file(self._at(name)))

    def open(self, name, checksum):
        """Open a file in the cache, which has the checksum.

        Raises:
            DamagedFile: it has another one at each try.
            StoreError: it could not be fetched in time.
        """

        def fetch(path):
            def once():
                # Of a try that ran out of time, the file is nobody's.
                part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
                try:
                    self._files.get_file(self._at(name), str(part))
                    if sha256(part) != checksum:
                        raise DamagedFile("it has another sum than the index")
                    os.replace(part, path)
                finally:
                    part.unlink(missing_ok=True)

            self._try(name, once)

        suffix = "".join(pathlib.Path(name).suffixes)
        return self._cache.keep(f"{checksum}{suffix}", fetch)

    def sizes(self):
        """Return None: listings of object stores may be old."""

    def checksum(self, name):
        """Return the SHA-256 of a file, which is not kept."""

        def once():
            with self._files.open(self._at(name), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return self._try(name, once)

    def read_ahead(self, files):
        """Fetch files in the background, unless a thread does so already.

        Args:
            files: list of pairs of a name and a checksum.
        """
        busy = self._thread is not None and self._thread.is_alive()
        if files != self._ahead and not busy:
            self._ahead = files
            self._thread = threading.Thread(
                target=self._fetch_all, args=(files,), daemon=True
            )
            self._thread.start()

    def _fetch_all(self, files):
        for name, checksum in files:
            try:
                self.open(name, checksum).close()
            # Whoever needs the file gets the error.
            except (OSError, ValueError):
                return

    def _at(self, name):
        return f"{self._root}/{name}"

    def _try(self, name, act):
        """Call a function until it raises nothing, or time is over."""
        end, pause = time.monotonic() + self._cache.seconds, _PAUSE
        damaged = 0
        while True:
            # A stalled try leaves time for another one.
            left = end - time.monotonic()
            try:
                return _within(max(left / 2, 0.0), act)
            except PermissionError:
                raise
            # Libraries of stores raise errors of many types.
            except Exception as error:
                damaged += isinstance(error, DamagedFile)
                if damaged == _MOST_DAMAGED:
                    raise
                if end - time.monotonic() > pause:
                    # Not all processes at the same time.
                    time.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                raise StoreError(
                    f"{self._url}/{name} could not be read within "
                    f"{self._cache.seconds:g} s (`ShardCache.seconds`). The "
                    f"last error: {type(error).__name__}: {error!s:.300}"
                ) from error


def _within(seconds, act):
    """Call a function in a thread, which is left alone after some seconds."""
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        raise TimeoutError(f"no answer in {seconds:.3g} s") from None


def place_of(folder, cache=None):
    """Return the place of a data set by its path or URL."""
    if "://" in str(folder):
        return ObjectStore(folder, cache or ShardCache())
    if cache is not None:
        raise ValueError(
            "`cache` is that of object stores, whose URL is such as "
            f"'s3://bucket/data'. Received: {folder!r}"
        )
    return LocalFolder(folder)
