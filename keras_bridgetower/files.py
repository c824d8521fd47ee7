"""Opens regular files only, and writes files completely or not at all."""

import contextvars
import errno
import functools
import hashlib
import os
import pathlib
import stat
import tempfile

# Where a file is a question to the kernel: it may block, or never end.
KERNEL = ("proc", "sys")
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def keras_home():
    """The folder of Keras' own files, `$KERAS_HOME` or `~/.keras`."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home)


def open_regular(path):
    """Open a plain file for reading, and refuse anything else at once.

    Reading a pipe may wait forever, reading a device may never end, and some
    devices do something when they are opened.

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
    _check(path, os.stat(path))
    flags = os.O_RDONLY
    # Windows knows no O_NONBLOCK, and has to be told that bytes are wanted.
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    handle = os.open(path, flags)
    try:
        # Another file may have taken the name since.
        _check(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_text(path, largest):
    """The text of a plain file in UTF-8, if it is not too long.

    Args:
        path: as `open_regular`.
        largest: int, the most bytes that it may have.

    Returns:
        str.

    Raises:
        ValueError: a longer file, another encoding, or as `open_regular`.
        OSError: as `open_regular`.

    Example:

    ```python
    read_text("config.json", 1_000_000)
    ```
    """
    with open_regular(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    return content.decode("utf-8")


def file_is_gone(path):
    """Return True if there is no file at a path.

    A file that cannot be seen, such as one in a folder without permission,
    is not gone.
    """
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def check_no_link(path, name):
    """Refuse an output that is a link: writing would change another file.

    Args:
        path: path of a file or folder to write, or of one that is not there.
        name: str, the argument that the error names.

    Raises:
        ValueError: the path is a symbolic link, be its target there or not.
    """
    if os.path.islink(path):
        raise ValueError(
            f"{name} must not be a link. Give the path that it leads to, or "
            f"delete the link. Received: {os.fspath(path)!r}, a link to "
            f"{os.path.realpath(path)!r}"
        )


def sha256(path):
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(path):
    """What is another tuple once a file was written to or replaced.

    Args:
        path: `pathlib.Path`.

    Returns:
        tuple of the path and of integers, those two last that are times.
    """
    found = path.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (path, found.st_dev, found.st_ino, found.st_size, *times)


def write_atomically(path, write):
    """Write a file so that it holds all of it, or what it held before.

    Args:
        path: path of the file, which one process at a time may write.
        write: callable that writes into the binary file it is given.

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
    """Rename a finished file once the disk holds it."""
    synchronise(part)
    os.replace(part, path)
    synchronise(os.path.dirname(path) or ".")


def synchronise(path):
    """Wait until the disk holds a file, or the names in a folder."""
    # Windows does neither for what is open for reading.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderExists(ValueError):
    """A folder to be written exists already."""

    def __init__(self, folder):
        super().__init__(
            "`preset_dir` must not exist yet: nothing is overwritten. Remove "
            f"it or choose another one. Received: preset_dir={str(folder)!r}"
        )


# Folders that this thread is writing, which parts of a model write into.
_WRITING = contextvars.ContextVar("writing", default=frozenset())


def write_folder(folder, save, finish=None):
    """Write a folder as a whole or not at all.

    Args:
        folder: path of the new folder, or of one that an outer call is
            writing.
        save: callable that writes the files into the folder it is given.
        finish: callable of the path of the whole folder, before it appears;
            of the outer call alone.

    Raises:
        FolderExists: the folder exists, be it since another process wrote it.
        ValueError: the path is a link.
    """
    folder = pathlib.Path(folder)
    if str(folder) in _WRITING.get():
        save(str(folder))
        return
    check_no_link(folder, "The folder to write")
    if folder.exists():
        raise FolderExists(folder)
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
                raise FolderExists(folder) from error
            raise


class Below:
    """The paths below a folder, as a table names them.

    Args:
        folder: path of the folder, which may itself be a link.

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
        self._real = os.path.join(os.path.realpath(folder), "")
        # Pictures share folders, and following links asks the disk.
        self._real_folder = functools.lru_cache(1024)(os.path.realpath)

    def key(self, name):
        """A path, the same however it is written.

        Args:
            name: str, relative to the folder or in full.

        Returns:
            str: relative to the folder, with `/`, or in full where `name` is
            and lies elsewhere.
        """
        path = os.path.normpath(os.path.join(self.folder, name))
        if _begins(path, self._start):
            path = path[len(self._start) :]
        elif not (os.path.isabs(name) or os.path.splitdrive(name)[0]):
            path = os.path.relpath(path, self.folder)
        return path.replace(os.sep, "/")

    def leads_out(self, name):
        """Whether a path leaves the folder, by itself or by a link.

        Args:
            name: str, as `key`.

        Returns:
            bool.
        """
        path = os.path.normpath(os.path.join(self.folder, name))
        if not _begins(path, self._start):
            return True
        try:
            folder, last = os.path.split(path)
            real = os.path.join(self._real_folder(folder), last)
            real = os.path.realpath(path) if os.path.islink(real) else real
        # What no file can be called is for reading to refuse.
        except ValueError:
            return False
        return not _begins(real, self._real)


def _begins(path, folder):
    return os.path.normcase(path).startswith(os.path.normcase(folder))


def _check(path, found):
    path = os.fsdecode(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    kind = KINDS.get(stat.S_IFMT(found.st_mode))
    if os.path.realpath(path).split(os.sep)[1:2] in [[k] for k in KERNEL]:
        kind = "a file of the kernel"
    if kind:
        raise ValueError(
            f"{path} must be a plain file on a disk. Received: {kind}. Copy "
            "what it holds into a file."
        )
