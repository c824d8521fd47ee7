"""The two layouts of files of `torch.save`.

Since PyTorch 1.6 such a file is a zip file. Before, it was a row of pickles,
followed by the numbers of tensors.
"""

import io
import pickletools
import zipfile

import numpy as np

from keras_bridgetower.presets.errors import ConversionError

VERSIONS = range(1, 11)
# The largest pickle in bytes. That of a large model with the state of its
# optimizer has less than 1 MB.
MOST_BYTES = 4 << 20
# The pickles of a magic number and of the version 1001, which begin old files.
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def open_archive(path):
    """Open a file of `torch.save`.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        `Archive` or `OldArchive`.

    Raises:
        ConversionError: the file is not an intact file of `torch.save`.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(OLD)) == OLD:
                return OldArchive(path)
    return Archive(path)


class _File:
    """Abstract: an opened file.

    `pickle` is the pickle of the saved object, as a NumPy array of bytes.
    `others` are pickles of values that `place` needs before numbers are read.
    """

    others = ()

    def __init__(self, path):
        self.path = path
        if not path.is_file():
            raise self.error("It must be a regular file")

    def _damaged(self, error):
        return self.error(f"{type(error).__name__}: {error!s:.100}")

    def error(self, reason):
        return ConversionError(
            f"The file must be an intact file of `torch.save`: {reason}. Fetch "
            "it again, or save its state dict with PyTorch 1.6 or newer.",
            self.path,
        )


class Archive(_File):
    """The entries of a zip file, by their names in its one folder.

    The file is read and never mapped into memory: if it is truncated in the
    meantime, an error is raised, where with a mapped file the process would
    crash. Each entry has a checksum.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        ConversionError: the file is not an intact file of `torch.save`.
    """

    def __init__(self, path):
        super().__init__(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # A damaged directory raises any error.
            raise self._damaged(error) from error
        entries = self._zip.infolist()
        self._entries = {e.filename.partition("/")[2]: e for e in entries}
        self._last = (None, None)
        self._check(entries)

    def _check(self, entries):
        names = [entry.filename for entry in entries]
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(self._entries) != len(names):
            raise self.error("Its entries must be of one folder, each once")
        if sum(e.file_size for e in entries) > self.path.stat().st_size:
            raise self.error("It is smaller than its entries")
        # Compressed ones may be far longer than their `file_size`.
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise self.error("Its entries must not be compressed")
        version = self.read("version").tobytes().strip()
        if version not in {b"%d" % v for v in VERSIONS}:
            raise self.error(f"Its version is {version!r:.80}")
        if "byteorder" in self._entries:
            order = self.read("byteorder").tobytes()
            if order != b"little":
                raise self.error(f"Its byte order is {order!r:.80}")

    @property
    def pickle(self):
        """NumPy array of bytes, the pickle of the saved object."""
        if (self.size("data.pkl") or 0) > MOST_BYTES:
            raise self.error(f"Its pickle has more than {MOST_BYTES} bytes")
        return self.read("data.pkl")

    def size(self, name):
        """Return the size of an entry in bytes, or None if it is absent."""
        entry = self._entries.get(name)
        return entry and entry.file_size

    def read(self, name):
        """Read an entry, whose checksum must be right.

        Args:
            name: str, name of the entry without its folder.

        Returns:
            NumPy array of bytes. The last one is kept, since tensors may be
            parts of one entry.

        Raises:
            ConversionError: the entry is absent or damaged.
        """
        if self._last[0] == name:
            return self._last[1]
        if name not in self._entries:
            raise self.error(f"It has no entry {name!r:.80}")
        entry = self._entries[name]
        try:
            content = np.frombuffer(self._zip.read(entry), "uint8")
        except Exception as error:  # As above.
            raise self._damaged(error) from error
        self._last = (name, content)
        return content


class OldArchive(_File):
    """A file of PyTorch before 1.6, without checksums.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        ConversionError: the file is not an intact file of `torch.save`.
    """

    def __init__(self, path):
        super().__init__(path)
        with path.open("rb") as file:
            # A damaged pickle cannot make this read more.
            start = io.BytesIO(file.read(MOST_BYTES))
        start.seek(len(OLD))
        self._places = {}
        try:
            system, self.pickle, keys = (_pickle(start) for _ in range(3))
        except Exception as error:  # A damaged pickle raises any error.
            raise self._damaged(error) from error
        self.others = system, keys
        self._start = start.tell()

    def place(self, storages, system, keys):
        """Find the numbers of tensors, which follow the pickles.

        Args:
            storages: dict from keys to `Storage`.
            system, keys: the values in `others`: a dict that describes the
                machine, and the list of keys in the order of the file.

        Raises:
            ConversionError: the file is shorter or longer, or of another byte
                order.
        """
        if not all(isinstance(s.dtype, np.dtype) for s in storages.values()):
            return  # Numbers of unknown types have unknown sizes.
        if system.get("little_endian") is not True:
            raise self.error("Its byte order must be little-endian")
        if sorted(keys) != sorted(storages):
            raise self.error("It must list each storage once")
        place = self._start
        for key in keys:
            count = int(self._read(place, 8).view("<i8")[0])
            if count != storages[key].count:
                raise self.error(f"It holds {count} numbers of {key:.80}")
            self._places[storages[key].entry] = place + 8, storages[key].nbytes
            place += 8 + storages[key].nbytes
        if place != self.path.stat().st_size:
            raise self.error(f"It must have {place} bytes")

    def size(self, name):
        """Return the size of an entry in bytes, or None if it is absent."""
        return self._places.get(name, (0, None))[1]

    def read(self, name):
        """Read an entry, as `Archive.read`."""
        return self._read(*self._places[name])

    def _read(self, place, size):
        with self.path.open("rb") as file:
            file.seek(place)
            content = np.frombuffer(file.read(size), "uint8")
        if len(content) != size:
            raise self.error("It is too short")
        return content


def _pickle(file):
    """Return the next pickle in a file as a NumPy array, without running it."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    return np.frombuffer(file.getvalue()[start : file.tell()], "uint8")
