"""Reads and writes the files of object stores, such as `s3://bucket/folder`.

Every read has a largest size, every failure is tried again by one rule, and the
names of a listing stay below the URL. Messages show no user names, passwords
and queries of URLs.
"""

import contextlib
import errno
import logging
import pathlib
import random
import re
import shutil
import tempfile
import time
import urllib.parse
import uuid

from keras_bridgetower import files
from keras_bridgetower.checks import load_extra

LOGGER = logging.getLogger("keras_bridgetower")
# Seconds after which a failure is final.
SECONDS = 600.0
# Seconds before the second try; twice as many before each further one.
_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# Failures after which a warning tells of them.
_TOLD = 4
# Seconds without an answer after which a try ends, and bytes in each further
# second that are too few.
_LONGEST_WAIT, _SLOWEST = 30.0, 1000
# A drive of Windows has one letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+:/")


class StoreError(OSError):
    """Raised if an object store cannot be read or written in time."""


class MissingFile(StoreError, FileNotFoundError):
    """Raised if an object store has no such file."""


class DamagedFile(ValueError):
    """Raised if a file has another checksum than it should."""


class TooLarge(StoreError):
    """Raised if a file has more bytes than it may."""


# Another try cannot help.
_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError),
    *(TypeError, AttributeError, NotImplementedError),
)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
# Not the generator that users seed, and other pauses in each process.
_DRAWS = random.SystemRandom()


def is_url(path):
    """Return True if a path is the URL of an object store.

    Raises:
        ValueError: `pathlib.Path` has removed a slash from a URL.
    """
    if not _URL.match(str(path)):
        return False
    if "://" not in str(path):
        raise ValueError(
            "The URL of an object store must be a str, with '://'. Received: "
            f"{hide(path)!r}"
        )
    return True


def hide(text):
    """Return a text without user names, passwords and queries of its URLs."""
    text = re.sub(r"(:/+)[^\s/]*@", r"\1", str(text))
    return re.sub(r"(:/+[^\s'\"?#]*)[?#][^\s'\")>]*", r"\1", text)


class Store:
    """The files below a URL, by fsspec.

    Credentials are those of the platform: environment variables, files and
    services that the libraries of the store know.

    Args:
        url: str, such as `"s3://bucket/data"`, `"gs://..."`, `"https://..."`.
            A query, such as that of a signed URL, is that of each file.
        seconds: float, how long to try; by default `SECONDS`.
    """

    def __init__(self, url, seconds=None):
        load_extra("fsspec", "object_stores")
        self._given = str(url)
        self._is_web = self._given.lower().startswith("http")
        parts = self._given.partition("?" if self._is_web else "\0")
        self._url, self._query = parts[0].rstrip("/"), "".join(parts[1:])
        self.seconds = SECONDS if seconds is None else seconds
        self._wait = min(_LONGEST_WAIT, self.seconds / 2)

    def __str__(self):
        return hide(self._url)

    def names(self):
        """Return a dict from the names of all files to their sizes.

        Names that lead out of the URL are left out.

        Raises:
            StoreError: also for `https`, which has no listings.
        """
        if self._is_web:
            raise StoreError(f"{self} can only be read, as https has no lists.")

        def act():
            store, root = self._open("")
            # Another process may have written since.
            store.invalidate_cache()
            found = store.find(root.rstrip("/"), detail=True)
            # A path elsewhere stays absolute, or becomes one below the root.
            sizes = {k.removeprefix(root): found[k].get("size") for k in found}
            return {n: sizes[n] for n in sizes if files.plain_name(n)}

        return self._try(act, "")

    def read(self, name, largest):
        """Return the bytes of a file; the arguments are as in `fetch`."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "file")
            self.fetch(name, path, largest)
            return path.read_bytes()

    def fetch(self, name, path, largest=None, checksum=None, least=0):
        """Copy a file to a path, where no part of it appears.

        Args:
            name: str.
            path: path of the copy.
            largest: int, its largest size; None for most of what is free on
                the disk.
            checksum: str, its SHA-256, or None.
            least: int, the size from which a wrong checksum counts as damage.
                A smaller file is fetched again: it was cut, or is an error
                page.

        Raises:
            DamagedFile: the store has a file of another checksum.
            StoreError: it is larger, or could not be fetched in time.
        """
        fsspec = load_extra("fsspec", "object_stores")
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if largest is None:
            largest = shutil.disk_usage(path.parent).free * 9 // 10

        def act():
            begin, end = time.monotonic(), []

            def check(size, value, **_):
                if max(size or 0, value) > largest:
                    raise TooLarge(
                        f"{self}/{name} has more than {largest:,} bytes"
                    )
                slow = time.monotonic() - begin - value / _SLOWEST
                if end or slow > self._wait:
                    raise ConnectionError(f"under {_SLOWEST} bytes a second")

            store, place = self._open(name)
            # Its library may copy without asking.
            if not store.async_impl:
                check(store.size(place), 0)
            calls = fsspec.Callback(hooks={"check": check})
            part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
            try:
                store.get_file(place, str(part), callback=calls)
                if checksum not in (None, files.sha256(part)):
                    is_cut = part.stat().st_size < least
                    raise (ConnectionError if is_cut else DamagedFile)(
                        f"{name}: its checksum differs from the saved one"
                    )
                files.move_into_place(part, path)
            finally:
                # An interrupted download ends with its next bytes.
                end.append(True)
                part.unlink(missing_ok=True)

        self._try(act, name)

    def write(self, name, content):
        """Write a file: bytes, or those of a file with a path."""
        if isinstance(content, bytes):
            self._do("pipe_file", name, content)
            return

        def act():
            store, path = self._open(name)
            store.put_file(str(content), path)

        self._try(act, name)

    def copy(self, name, other):
        """Copy a file to another name."""
        self._do("cp_file", name, self._open(other)[1])

    def remove(self, names, first=None):
        """Remove files, one of them first if it is among them."""
        for name in sorted(names, key=lambda name: name != first):
            # An earlier try may have removed it.
            with contextlib.suppress(MissingFile):
                self._do("rm_file", name)

    def modified(self, name):
        """Return the time at which a file was written."""
        return self._do("modified", name)

    def _open(self, name):
        """Return the file system of the URL, and the path of a file in it."""
        fsspec = load_extra("fsspec", "object_stores")
        options = {}
        if self._is_web:
            aiohttp = load_extra("aiohttp", "object_stores")
            # By default all of a file must come in five minutes.
            waits = {"sock_connect": self._wait, "sock_read": self._wait}
            waits = aiohttp.ClientTimeout(total=None, **waits)
            options["client_kwargs"] = {"timeout": waits}
        store, root = fsspec.core.url_to_fs(self._url, **options)
        return store, f"{root.rstrip('/')}/{name}{self._query}"

    def _do(self, method, name, *arguments):
        """Call a method of the file system, as `_try`."""

        def act():
            store, path = self._open(name)
            return getattr(store, method)(path, *arguments)

        return self._try(act, name)

    def _try(self, act, name):
        """Call a function until it succeeds, and return its result.

        Args:
            act: function without arguments.
            name: str, the file in errors.
        """
        first, pause, failures = time.monotonic(), _PAUSE, 0
        while True:
            try:
                return act()
            except (DamagedFile, TooLarge, ImportError):
                raise
            # Libraries of stores raise errors of many types.
            except Exception as error:
                failed = error
            # Outside of `except`, as the error itself may show a password.
            spent, told = time.monotonic() - first, self._told(failed)
            if (
                isinstance(failed, _FINAL)
                or getattr(failed, "errno", None) in _DISK
                or getattr(failed, "status", None) in (400, 401, 403, 410)
                or spent + pause > self.seconds
            ):
                is_missing = isinstance(failed, FileNotFoundError)
                raise (MissingFile if is_missing else StoreError)(
                    f"{self}/{name} could not be read or written in "
                    f"{spent:.1f} s (the limit, `seconds`, is "
                    f"{self.seconds:g}). The last error: {told}"
                )
            failures += 1
            if failures == _TOLD:
                text = "%s/%s failed %d times. The last error: %s"
                LOGGER.warning(text, self, name, failures, told)
            time.sleep(pause * _DRAWS.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _told(self, error):
        """Describe an error without the secrets of the URL."""
        text = hide(f"{type(error).__name__}: {str(error) or 'no answer'}")
        parts = urllib.parse.urlsplit(self._given)
        secrets = [parts.username, parts.password, parts.query]
        for secret in filter(None, secrets):
            for form in (secret, urllib.parse.unquote(secret)):
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text)
        return text[:300]
