"""Reads regular files and strict JSON, writes whole files, and locks."""

import collections
import contextlib
import contextvars
import hashlib
import io
import json
import math
import os
import pathlib
import stat
import tempfile
import warnings

import filelock

# Folders of the kernel, whose files may block or never end.
KERNEL = (("proc",), ("sys",))
# The file with the names and checksums of all others in a folder.
MANIFEST = "manifest.json"
# Names or lists in a JSON file: more than in any published vocabulary.
MOST_VALUES = 1_500_000
# Levels of nesting in JSON: Python code that walks a value must not run out of
# stack. Annotations and configurations have fewer than ten.
DEEPEST_JSON = 100
# The key of the checksum in a JSON object.
_CHECKSUM = "seal"


def keras_home():
    """Return the folder of Keras' own files, `$KERAS_HOME` or `~/.keras`."""
    return pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()


def open_regular(path):
    """Open a plain file for reading, and reject anything else at once.

    Reading a pipe may wait forever, reading a device may never end, and
    opening some devices has effects.

    Args:
        path: `str`, `bytes` or `os.PathLike`.

    Returns:
        A binary file, open for reading.

    Raises:
        ValueError: a pipe, a device, a socket, or a file of `/proc` or `/sys`.
        OSError: no such file, a directory, or no right to read it.

    Example:

    ```python
    with open_regular("photo.png") as file:
        data = file.read()
    ```
    """
    name = os.fsdecode(path)
    first = pathlib.Path(os.path.realpath(name)).parts[1:2]
    plain = stat.S_ISREG(os.stat(name).st_mode) and first not in KERNEL
    # Opening a folder is an error by itself.
    if not plain and not os.path.isdir(name):
        raise ValueError(f"{name} must be a plain file on a disk.")
    return open(path, "rb")


def open_bytes_of_text(path):
    """Open a text file for reading bytes; a NUL byte in it is an error.

    The holes of a sparse file consist of NUL bytes, so a file that takes no
    room on the disk cannot fill the memory.

    Args:
        path: as in `open_regular`.

    Returns:
        `io.BufferedReader`. Reading raises ValueError at the first NUL.
    """
    return io.BufferedReader(_BytesOfText(open_regular(path)))


class _BytesOfText(io.RawIOBase):
    def __init__(self, file):
        self._file = file

    def readable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    def readinto(self, buffer):
        count = self._file.readinto(buffer)
        if b"\0" in bytes(buffer[:count]):
            raise ValueError(
                f"{self._file.name} must be a text in UTF-8. Received: NUL "
                "bytes, as in UTF-16 and in files with holes."
            )
        return count

    def close(self):
        self._file.close()
        super().close()


def read_text(path, largest=None):
    """Read a plain file in UTF-8, if it is not too long.

    Args:
        path: as in `open_regular`.
        largest: int, the largest size in bytes, or None.

    Returns:
        str.

    Raises:
        ValueError: a longer file, another encoding, NUL bytes, or as in
            `open_regular`.
        OSError: as in `open_regular`.

    Example:

    ```python
    read_text("config.json", 1_000_000)
    ```
    """
    with open_bytes_of_text(path) as file:
        content = file.read() if largest is None else read_most(file, largest)
    return content.decode("utf-8")


def plain_name(name):
    """Return True for a str that is a relative path inside its folder.

    Its separator is `/`.
    """
    return (
        isinstance(name, str)
        and name.isprintable()
        and not {"", ".", ".."} & set(name.split("/"))
        and not set(name) & set("\\:")
    )


def file_is_gone(path):
    """Return True if there is no file; False if that cannot be found out."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def check_no_link(path, name):
    """Check that an output is no link: writing would change another file.

    Args:
        path: path of a file or folder to write; it need not exist.
        name: str, the argument that the error names.

    Raises:
        ValueError: the path is a symbolic link, even to nothing.
    """
    if os.path.islink(path):
        raise ValueError(
            f"{name} must not be a link. Give the path of its target. "
            f"Received: {str(path)!r}, a link to {os.path.realpath(path)!r}"
        )


def read_most(file, largest):
    """Read all bytes of an open binary file, at most `largest`.

    Raises:
        ValueError: the file has more.
    """
    if os.fstat(file.fileno()).st_size > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    return file.read()


def parse_json(text, nan=True):
    """Parse JSON that can be read in only one way.

    Args:
        text: str, or bytes in UTF-8.
        nan: bool, whether to accept `NaN` and `Infinity`, which Python writes
            but JSON does not have, and numbers too large for a float, such as
            `1e999`, which Python would write so.

    Returns:
        The value.

    Raises:
        ValueError: text that is not JSON or not UTF-8, an object that has a
            key twice, or nesting deeper than `DEEPEST_JSON`.

    Example:

    ```python
    parse_json('{"a": 1, "a": 2}')  # ValueError: the key 'a' occurs twice
    ```
    """
    if not isinstance(text, str):
        # `json` would also guess UTF-16 and UTF-32.
        text = text.decode("utf-8-sig")
    options = {}
    if not nan:
        options = {"parse_constant": _finite, "parse_float": _finite}
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, **options)
        _check_depth([value], DEEPEST_JSON)
    except RecursionError:
        raise ValueError(
            f"it is nested deeper than {DEEPEST_JSON} levels"
        ) from None
    return value


def checksummed(content):
    """Return a dict as the text of a JSON object with its own checksum.

    Example:

    ```python
    parse_checksummed(checksummed({"step": 3}))  # {"step": 3}
    ```
    """
    checksum = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, _CHECKSUM: checksum}, indent=2) + "\n"


def parse_checksummed(text):
    """Parse the text of `checksummed` to the dict.

    Raises:
        ValueError: the text was changed, or as in `parse_json`.
    """
    found = parse_json(text)
    if isinstance(found, dict):
        content = {k: v for k, v in found.items() if k != _CHECKSUM}
        if text == checksummed(content):
            return content
    raise ValueError("it was changed: its checksum is another one")


def read_json(path, largest=None, nan=True):
    """Read a JSON file with `read_text` and `parse_json`.

    With `largest`, a file of many small values is refused at once too: as
    Python's objects these take far more time and memory than its bytes.
    """
    text = read_text(path, largest)
    if largest and max(text.count('":'), text.count("[")) > MOST_VALUES:
        raise ValueError(f"{path} must have at most {MOST_VALUES:,} values")
    return parse_json(text, nan)


def _without_repeats(pairs):
    """Build the dict of a JSON object without repeated keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        [(twice, _)] = counts.most_common(1)
        raise ValueError(f"the key {twice!r:.80} occurs twice in an object")
    return found


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.80} is not a number in JSON")
    return value


def _check_depth(values, most):
    for value in values:
        if isinstance(value, (dict, list)):
            if not most:
                raise RecursionError
            inner = value.values() if isinstance(value, dict) else value
            _check_depth(inner, most - 1)


def sha256(path):
    """Return the SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sums(folder):
    """Return the SHA-256 of each file except the manifest, by its path."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def file_state(path):
    """Return a tuple that changes when a file is written to or replaced.

    Args:
        path: `pathlib.Path`.

    Returns:
        tuple of the path and of integers; the last two are times in ns.
    """
    found = path.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (path, found.st_dev, found.st_ino, found.st_size, *times)


def write_atomically(path, write):
    """Write all of a file, or leave it unchanged.

    Args:
        path: path of the file, which one process at a time may write.
        write: callable that gets a binary file and writes into it.

    Raises:
        ValueError: `<path>.part`, which is written first, is a link.
        OSError: the disk is full or not writable.
    """
    part = f"{path}.part"
    check_no_link(part, "A file to write")
    with open(part, "wb") as file:
        write(file)
    move_into_place(part, path)


def move_into_place(part, path):
    """Rename a finished file once it is on the disk."""
    synchronize(part)
    os.replace(part, path)
    synchronize(os.path.dirname(path) or ".")


def synchronize(path):
    """Wait until a file, or the names in a folder, are on the disk."""
    # Windows cannot do it with a handle for reading.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderExists(ValueError):
    """The folder to write already exists."""

    def __init__(self, folder, name):
        super().__init__(
            f"`{name}` must not exist yet: nothing is overwritten. Remove it "
            f"or choose another one. Received: {name}={str(folder)!r}"
        )


# Folders that this thread is writing; the parts of a model write into them.
_WRITING = contextvars.ContextVar("writing", default=frozenset())


def write_folder(folder, save, finish=None, name="preset_dir"):
    """Write a folder as a whole or not at all.

    Args:
        folder: path of the new folder, or of one that an outer call is
            writing.
        save: callable that gets a folder and writes the files into it.
        finish: callable that gets the complete folder before it appears. Only
            that of the outer call is called.
        name: str, the argument with the folder, for errors.

    Raises:
        FolderExists: the folder exists.
        ValueError: the path is a link.
    """
    folder = pathlib.Path(folder)
    if str(folder) in _WRITING.get():
        save(str(folder))
        return
    check_no_link(folder, "The folder to write")
    if folder.exists():
        raise FolderExists(folder, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent
    ) as temporary:
        whole = pathlib.Path(temporary) / folder.name
        whole.mkdir()
        token = _WRITING.set(_WRITING.get() | {str(whole)})
        try:
            save(str(whole))
        finally:
            _WRITING.reset(token)
        if finish is not None:
            finish(whole)
        try:
            whole.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FolderExists(folder, name) from error
            raise


class Below:
    """The paths below a folder.

    Args:
        folder: path of the folder, which may itself be a link. In a snapshot
            of the Hugging Face hub's cache, links may lead to its `blobs`.

    Example:

    ```python
    below = Below("photos")
    below.key("./cats/../dog.jpg")  # "dog.jpg"
    below.leads_out("../secret.jpg")  # True
    ```
    """

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        self._start = os.path.join(self.folder, "")
        real = pathlib.Path(os.path.realpath(folder))
        homes = [real] + [
            path.parent.parent / "blobs"
            for path in (real, *real.parents)
            if path.parent.name == "snapshots"
        ]
        self._homes = [os.path.join(home, "") for home in homes]

    def key(self, name):
        """Return the normal form of a path.

        Args:
            name: str, relative to the folder or absolute.

        Returns:
            str: relative to the folder, with `/`, or absolute if `name` is
            absolute and elsewhere.
        """
        path = os.path.normpath(os.path.join(self.folder, name))
        if _begins(path, self._start):
            path = path[len(self._start) :]
        elif not (os.path.isabs(name) or os.path.splitdrive(name)[0]):
            path = os.path.relpath(path, self.folder)
        return path.replace(os.sep, "/")

    def leads_out(self, name):
        """Return True if a path, or a link in it, leaves the folder.

        Args:
            name: str, as in `key`.
        """
        path = os.path.join(self.folder, name)
        if not _begins(os.path.normpath(path), self._start):
            return True
        try:
            # The normal path would be wrong: behind a link, `..` leads
            # elsewhere.
            real = os.path.realpath(path)
        # Reading reports names that no file can have.
        except ValueError:
            return False
        return not any(_begins(real, home) for home in self._homes)


def _begins(path, folder):
    return os.path.normcase(path).startswith(os.path.normcase(folder))


@contextlib.contextmanager
def locked(path, timeout=-1, refusal=None, warning=None):
    """Wait for a lock that one process and thread can have at a time.

    The operating system releases the lock when the process ends.

    Args:
        path: path of the lock file; its folder is created.
        timeout: float, how many seconds to wait; without end by default.
        refusal: the error to raise if another one has the lock then.
        warning: str, given if the file system has no locks.
    """
    lock = filelock.FileLock(path, mode=0o664)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        lock.acquire(timeout)
    except filelock.Timeout as error:
        raise refusal from error
    # Some file systems have no locks, and some caches are read-only. Without
    # a lock, work may be done twice, and writing may fail.
    except (OSError, NotImplementedError) as error:
        if warning is not None:
            warnings.warn(f"{warning} ({error})", stacklevel=4)
    try:
        yield
    finally:
        lock.release()


def one_writer(path, refusal):
    """Take a lock, or raise an error if another process has it.

    Args:
        path: path of the lock file, in a folder that exists.
        refusal: str, the text of the error.

    Raises:
        ValueError: another process or thread has it, or the file is a link.
    """
    check_no_link(path, "A lock file")
    return locked(path, 0, ValueError(refusal))
