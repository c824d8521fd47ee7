"""Files that a user names: only plain files are opened."""

import errno
import functools
import os
import stat

# Where a file is a question to the kernel: it may block, or never end.
KERNEL = ("proc", "sys")
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


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
