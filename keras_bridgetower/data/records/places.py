"""Read the files of a data set from a folder or an object store.

Shards of an object store are fetched as a whole into a cache on this machine,
which all of its processes share.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import logging
import os
import pathlib
import random
import re
import threading
import time
import uuid

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import load_extra
from keras_bridgetower.files import keras_home
from keras_bridgetower.files import locked
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most
from keras_bridgetower.files import sha256
from keras_bridgetower.object_stores import STALLED
from keras_bridgetower.object_stores import open_store

LOGGER = logging.getLogger("keras_bridgetower.data")
# Files of the cache. No other file in its folder is deleted.
_OWN = re.compile(
    r"[0-9a-f]{64}\.(tfrecord|tar|parquet|offsets\.npy)(\.[0-9a-f]{32}\.part)?"
)
# Unfinished files that did not grow for so many seconds were left by a process
# that has ended.
_LEFT = 3600
# Seconds before the second try; twice as many before each further one.
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# Failures after which a warning tells of them.
_TOLD = 4
# How long a new file may be missing in a store.
_UNLISTED = 10.0
# Times that a file must come with the same wrong checksum to count as damaged.
_DAMAGED = 3
# Files that are fetched ahead at a time.
_THREADS = 4
# Another try cannot help.
_FINAL = (PermissionError, ImportError, TypeError, AttributeError)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
# Not the generator that users seed, and other pauses in each process.
_DRAWS = random.SystemRandom()


class StoreError(OSError):
    """Raised if an object store does not give a file in time."""


class DamagedFile(ValueError):
    """Raised if a file has another checksum than the index, at each try."""


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

    def open(self, name, checksum, size):
        """Open a file; its checksum is not compared."""
        return open(self.folder / name, "rb", buffering=0)

    def checksum(self, name, wanted):
        """Return the SHA-256 of a file, or None if there is none."""
        path = self.folder / name
        return sha256(path) if path.is_file() else None

    def sizes(self):
        """Return a dict from the names of files to their sizes."""
        with os.scandir(self.folder) as entries:
            return {e.name: e.stat().st_size for e in entries if e.is_file()}

    def read_ahead(self, files):
        """Do nothing: the files are there."""


class ObjectStore:
    """The files of a data set in an object store, by fsspec.

    Credentials are those of the platform: environment variables, files and
    services that the libraries of the store know.

    Args:
        url: str, such as `"s3://bucket/data"`, `"gs://..."`, `"https://..."`.
        cache: `ShardCache`.
    """

    def __init__(self, url, cache):
        load_extra("fsspec", "object_stores")
        self._url, self._cache = str(url).rstrip("/"), cache
        folder = cache.folder or keras_home() / "keras_bridgetower_shards"
        self._folder = pathlib.Path(folder)
        self._lock, self._ahead, self._threads = threading.Lock(), [], []

    def __str__(self):
        return self._url

    def __reduce__(self):
        return ObjectStore, (self._url, self._cache)

    def read(self, name, largest, checksum=None):
        """Return the bytes of a file; one with a checksum is kept."""
        if checksum is not None:
            with self.open(name, checksum, None) as file:
                return read_most(file, largest)

        def use(part):
            with open(part, "rb") as file:
                return read_most(file, largest)

        return self._fetch(name, "0" * 64 + ".tfrecord", use)

    def open(self, name, checksum, size):
        """Open a file in the cache.

        Args:
            name: str.
            checksum: str, its SHA-256.
            size: int, its bytes, or None if they are not known.

        Raises:
            DamagedFile: the store has another file of this size.
            StoreError: it could not be fetched in time.
        """
        try:
            return self._kept(name, checksum, size)
        except (StoreError, DamagedFile):
            raise
        except OSError as error:
            raise StoreError(f"The cache {self._folder}: {error}") from error

    def _kept(self, name, checksum, size):
        file = checksum + "".join(pathlib.Path(name).suffixes)
        path, end = self._folder / file, self._end()
        found = []

        def place(part):
            found.append((sha256(part), part.stat().st_size))
            if found[-1][0] != checksum:
                right = size in (None, found[-1][1])
                if right and found[-_DAMAGED:] == found[-1:] * _DAMAGED:
                    raise DamagedFile("its checksum differs from the index")
                raise ValueError("its checksum differs from the index")
            move_into_place(part, path)

        while True:
            # Another process may delete it in between, but not once it is open.
            with contextlib.suppress(FileNotFoundError):
                opened = open(path, "rb")
                os.utime(opened.fileno())
                return opened
            with self._locked(checksum[:2], name, end):
                if not path.exists():
                    self._fetch(name, file, place, end)
            with self._locked("all", name, end):
                self._delete_unused(path)

    def checksum(self, name, wanted):
        """Return the SHA-256 of a file, or None if there is none."""
        try:
            self.open(name, wanted, None).close()
        except DamagedFile:
            return "another one"
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        return wanted

    def sizes(self):
        """Return None: listings of object stores may be old."""

    def read_ahead(self, files):
        """Fetch files in the background.

        Args:
            files: list of `(name, checksum, size)`, those needed first in
                front. What was not begun before is not fetched any more.
        """
        with self._lock:
            if files == self._ahead:
                return
            self._ahead, left = files, iter(files)
            lock = threading.Lock()

            def fetch():
                while True:
                    with lock:
                        given = next(left, None)
                    if given is None or self._ahead is not files:
                        return
                    # Whoever needs the file gets the error.
                    with contextlib.suppress(OSError, ValueError):
                        self.open(*given).close()

            self._threads = [t for t in self._threads if t.is_alive()]
            for _ in range(_THREADS - len(self._threads)):
                thread = threading.Thread(target=fetch, daemon=True)
                thread.start()
                self._threads.append(thread)

    def _end(self):
        return time.monotonic() + self._cache.seconds

    def _fetch(self, name, file, use, end=None):
        """Fetch a file and call a function of its path, until that succeeds.

        Args:
            name: str, as in the store.
            file: str, as in the cache, of which the temporary name begins.
            use: function of the path of the whole file, which may move it.
            end: float, the time at which to give up.

        Returns:
            What `use` returns.
        """
        end, pause = self._end() if end is None else end, _PAUSE
        first, failures = time.monotonic(), 0
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            part = self._folder / f"{file}.{uuid.uuid4().hex}.part"
            try:
                self._download(name, part, end)
                return use(part)
            except DamagedFile:
                raise
            # Libraries of stores raise errors of many types.
            except Exception as error:
                now = time.monotonic()
                is_final = (
                    isinstance(error, _FINAL)
                    or getattr(error, "errno", None) in _DISK
                    or now + pause > end
                    or isinstance(error, FileNotFoundError)
                    and now > first + _UNLISTED
                )
                if is_final:
                    raise StoreError(
                        f"{self._url}/{name} could not be read in "
                        f"{now - first:.1f} s (`ShardCache.seconds` is "
                        f"{self._cache.seconds:g}). The last error: "
                        f"{type(error).__name__}: {error!s:.300}"
                    ) from error
                failures += 1
                if failures == _TOLD:
                    text = "%s/%s could not be read %d times, the last: %r"
                    LOGGER.warning(text, self._url, name, failures, error)
                time.sleep(pause * _DRAWS.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE)
            finally:
                part.unlink(missing_ok=True)

    def _download(self, name, part, end):
        """Write a file of the store, in a thread that is left if it stalls."""
        done = concurrent.futures.Future()
        stalled = min(STALLED, self._cache.seconds / 2)

        def run():
            try:
                store, root = open_store(self._url, stalled)
                done.set_result(store.get_file(f"{root}/{name}", str(part)))
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        size, last = -1, time.monotonic()
        while not done.done():
            now = time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_size > size:
                    size, last = part.stat().st_size, now
            limit = min(end, last + stalled)
            if now >= limit:
                raise TimeoutError("no answer")
            concurrent.futures.wait([done], min(limit - now, 0.5))
        done.result()

    def _locked(self, lock, name, end):
        """Wait for a lock until the time is over."""
        refusal = StoreError(
            f"{self._url}/{name} was not there in {self._cache.seconds:g} s "
            "(`ShardCache.seconds`): another process or thread is fetching it"
        )
        wait = max(end - time.monotonic(), 0)
        return locked(self._folder / f"{lock}.lock", wait, refusal)

    def _delete_unused(self, newest):
        """Delete files until the others are small enough together."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                own = _OWN.fullmatch(entry.name)
                # Another process may remove its unfinished file.
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    if own and entry.is_file(follow_symlinks=False):
                        found.append(
                            (state.st_mtime, entry.path, state.st_size)
                        )
        total = 0
        for changed, path, size in sorted(found, reverse=True):
            total += size
            if path.endswith(".part"):
                unused = time.time() - changed > _LEFT
            else:
                unused = total > self._cache.most_bytes and path != str(newest)
            if unused:
                pathlib.Path(path).unlink(missing_ok=True)


def place_of(folder, cache=None):
    """Return the place of a data set by its path or URL."""
    text = str(folder)
    if "://" in text:
        return ObjectStore(folder, cache or ShardCache())
    if re.match(r"[a-z0-9+]{2,}:/", text):
        raise ValueError(
            f"`folder` must be a URL as str, with '://'. Received: {text!r}"
        )
    if cache is not None:
        raise ValueError(
            "`cache` is that of object stores, whose URL is such as "
            f"'s3://bucket/data'. Received: {text!r}"
        )
    return LocalFolder(folder)
