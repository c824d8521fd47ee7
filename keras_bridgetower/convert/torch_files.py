"""Reads files of `torch.save` without PyTorch and without running their code.

Such a file holds a pickle and the numbers of tensors: in a zip file since
PyTorch 1.6, before that as a row of pickles, followed by the numbers. Python's
own unpickler calls any function that a file names. This one accepts only the
opcodes that `torch.save` writes, and builds plain values and tensors. Any other
class or function becomes a `Foreign`, which does nothing. Tensors are read on
demand.
"""

import io
import math
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; adds bfloat16 to NumPy.
import numpy as np

from keras_bridgetower.presets.errors import ConversionError

VERSIONS = range(1, 11)
# The largest pickle in bytes. That of a large model with the state of its
# optimizer has less than 1 MB.
MOST_BYTES = 4 << 20
# The pickles of a magic number and of the version 1001, which begin old files.
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
MOST_AXES = 8
# PyTorch counts elements in signed 64-bit integers.
MOST_ELEMENTS = 1 << 63


def _damaged(path, reason):
    """Return an error; `reason` is a str, or the error that was raised."""
    if isinstance(reason, Exception):
        reason = f"{type(reason).__name__}: {reason!s:.100}"
    return ConversionError(
        f"The file must be an intact file of `torch.save`: {reason}. Fetch it "
        "again, or save its state dict with PyTorch 1.6 or newer.",
        path,
    )


class Archive:
    """The entries of a zip file, by their names in its one folder.

    The file is read and not mapped into memory: if it is truncated meanwhile,
    an error is raised, where a mapped file would crash the process. Each entry
    has a checksum.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        ConversionError: the file is damaged.
    """

    def __init__(self, path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # A damaged directory raises any error.
            raise _damaged(path, error) from error
        entries = self._zip.infolist()
        self._entries = {e.filename.partition("/")[2]: e for e in entries}
        self._last = (None, None)
        self._check(entries)

    def _check(self, entries):
        names = [entry.filename for entry in entries]
        folders = {name.partition("/")[0] for name in names}
        if len(folders) != 1 or len(self._entries) != len(names):
            reason = "Its entries must be of one folder, each once"
            raise _damaged(self.path, reason)
        if sum(e.file_size for e in entries) > self.path.stat().st_size:
            raise _damaged(self.path, "It is smaller than its entries")
        # Compressed ones may be far longer than their `file_size`.
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise _damaged(self.path, "Its entries must not be compressed")
        version = self.read("version").tobytes().strip()
        if version not in {b"%d" % v for v in VERSIONS}:
            raise _damaged(self.path, f"Its version is {version!r:.80}")
        if "byteorder" in self._entries:
            order = self.read("byteorder").tobytes()
            if order != b"little":
                raise _damaged(self.path, f"Its byte order is {order!r:.80}")

    def load(self):
        """Return the saved object, and the set of names of `Foreign`s in it."""
        if (self.size("data.pkl") or 0) > MOST_BYTES:
            reason = f"Its pickle has more than {MOST_BYTES} bytes"
            raise _damaged(self.path, reason)
        content = io.BytesIO(self.read("data.pkl").tobytes())
        unpickler = _Unpickler(self, content)
        return unpickler.load(), unpickler.foreign

    def size(self, name):
        """Return the size of an entry in bytes, or None if it is absent."""
        entry = self._entries.get(name)
        return entry and entry.file_size

    def read(self, name):
        """Read an entry and check its checksum.

        Args:
            name: str, name of the entry without its folder.

        Returns:
            NumPy array of bytes. The last one is kept, because several tensors
            may be views of it.

        Raises:
            ConversionError: the entry is absent or damaged.
        """
        if self._last[0] == name:
            return self._last[1]
        if name not in self._entries:
            raise _damaged(self.path, f"It has no entry {name!r:.80}")
        try:
            read = self._zip.read(self._entries[name])
        except Exception as error:  # As above.
            raise _damaged(self.path, error) from error
        self._last = (name, np.frombuffer(read, "uint8"))
        return self._last[1]


class OldArchive:
    """A file of PyTorch before 1.6, without checksums; as `Archive`."""

    def __init__(self, path):
        self.path = path
        self._offsets = {}

    def load(self):
        """Return the saved object and names, as `Archive.load`."""
        with self.path.open("rb") as file:
            # A damaged pickle cannot make this read more.
            start = io.BytesIO(file.read(MOST_BYTES))
        start.seek(len(OLD))
        # Pickles of the machine, of the saved object, and of a list of keys.
        machine, saved, listed = (_Unpickler(self, start) for _ in range(3))
        system, value, keys = machine.load(), saved.load(), listed.load()
        self._find(start.tell(), saved.storages, system, keys)
        return value, saved.foreign

    def _find(self, offset, storages, system, keys):
        """Find the numbers of storages, which follow the pickles."""
        if not all(isinstance(s.dtype, np.dtype) for s in storages.values()):
            return  # Numbers of unknown types have unknown sizes.
        if system.get("little_endian") is not True:
            raise _damaged(self.path, "Its byte order must be little-endian")
        if sorted(keys) != sorted(storages):
            raise _damaged(self.path, "It must list each storage once")
        for key in keys:
            count = int(self._read(offset, 8).view("<i8")[0])
            if count != storages[key].count:
                reason = f"It holds {count} numbers of {key:.80}"
                raise _damaged(self.path, reason)
            size = storages[key].nbytes
            self._offsets[storages[key].entry] = offset + 8, size
            offset += 8 + size
        if offset != self.path.stat().st_size:
            raise _damaged(self.path, f"It must have {offset} bytes")

    def size(self, name):
        """Return the size of an entry in bytes, or None if it is absent."""
        return self._offsets.get(name, (0, None))[1]

    def read(self, name):
        """Read an entry, as `Archive.read`."""
        return self._read(*self._offsets[name])

    def _read(self, offset, size):
        with self.path.open("rb") as file:
            file.seek(offset)
            content = np.frombuffer(file.read(size), "uint8")
        if len(content) != size:
            raise _damaged(self.path, "It is too short")
        return content


class Foreign:
    """A class or function that is not loaded. It ignores what is put into it.

    Args:
        name: str, the class or function that the file names.
    """

    def __init__(self, name):
        self.name = name

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    extend = append


class Storage(NamedTuple):
    """A flat array of numbers in a file; tensors are views of it.

    Args:
        archive: `Archive` or `OldArchive`.
        key: str, the name of its entry in the archive is `data/<key>`.
        dtype: NumPy dtype; a `Foreign` if the type is unknown.
        count: int, the number of elements, as the pickle gives it.
    """

    archive: object
    key: str
    dtype: object
    count: int

    @property
    def entry(self):
        return f"data/{self.key}"

    @property
    def nbytes(self):
        return self.count * self.dtype.itemsize


class Tensor(NamedTuple):
    """A view of a storage. Offset and strides count elements, not bytes.

    Args:
        storage: `Storage`.
        offset: int.
        shape: tuple of int.
        strides: tuple of int.
        flags: dict, such as `{"conj": True}`.
    """

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple
    flags: dict

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.storage.dtype.itemsize

    @property
    def span(self):
        """int, number of stored elements from the first to the last."""
        if 0 in self.shape:
            return 0
        axes = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in axes)

    def problem(self):
        """Return why the tensor cannot be read, or None."""
        storage = self.storage
        if isinstance(storage.dtype, Foreign):
            return f"of {storage.dtype.name}"
        # Many tensors may share one long shape.
        axes = (*self.shape[:MOST_AXES], *self.strides[:MOST_AXES])
        numbers = (storage.count, self.offset, *axes)
        right = all(type(n) is int and 0 <= n < MOST_ELEMENTS for n in numbers)
        count = len(self.shape)
        if not right or count != len(self.strides) or count > MOST_AXES:
            return "of an impossible shape"
        if self.flags:
            return "conjugated or negated only when it is read"
        stored = storage.archive.size(storage.entry)
        if stored != storage.nbytes:
            return f"stored in {stored} bytes, not {storage.nbytes}"
        if self.offset + self.span > storage.count:
            return f"beyond its {storage.count} stored numbers"
        if self._overlaps():
            return f"of shape {self.shape}, several from one stored number"
        return None

    def _overlaps(self):
        """Return True if two elements may share one stored element."""
        axes = zip(self.strides, self.shape, strict=True)
        reach = 0
        for stride, size in sorted(axis for axis in axes if axis[1] > 1):
            if stride <= reach:
                return self.span > 0
            reach += stride * (size - 1)
        return False

    def read(self):
        """Read the values; bfloat16 becomes float32.

        Returns:
            NumPy array.

        Raises:
            ConversionError: the file is damaged.
        """
        storage = self.storage
        stored = storage.archive.read(storage.entry).view(storage.dtype)
        # An axis of one element may have any stride.
        strides = [
            stride * stored.itemsize if size > 1 else 0
            for size, stride in zip(self.shape, self.strides, strict=True)
        ]
        values = np.lib.stride_tricks.as_strided(
            stored[self.offset :], self.shape, strides
        )
        values = np.asarray(values, order="C")
        if values.dtype == ml_dtypes.bfloat16:
            values = values.astype("float32")
        return values


# Allowed types of keys. Python hashes them without recursion, and a file cannot
# choose keys with equal hashes: the hashes of text are random, and those of
# integers below `LARGEST_KEY` differ.
KEYS = (str, int, float, bool, type(None), Foreign)
LARGEST_KEY = 1 << 60
# Characters of a name, which the values of a file may repeat.
LONGEST_NAME = 200

STORAGES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": ml_dtypes.bfloat16,
    "Double": "float64",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}


class _Dict(dict):
    """A dict that rejects keys which a file could choose to make it slow."""

    def __setitem__(self, key, value):
        large = type(key) is int and abs(key) >= LARGEST_KEY
        if type(key) not in KEYS or large:
            raise TypeError("A key must be text or a number.")
        super().__setitem__(key, value)


def _tensor(storage, offset, shape, strides, grad, hooks, flags=None):
    flags = _Dict() if flags is None else flags
    types = (type(storage), type(shape), type(strides), type(flags))
    if types != (Storage, tuple, tuple, _Dict):
        raise TypeError("A tensor must have a storage and a shape.")
    return Tensor(storage, offset, shape, strides, flags)


# The names that a file may use. Arguments of functions come from the file.
NAMES = {
    "collections.OrderedDict": lambda: _Dict(),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, grad, hooks: tensor,
    **{f"torch.{n}Storage": np.dtype(dtype) for n, dtype in STORAGES.items()},
}
# The names in `pickle` of the opcodes that `torch.save` writes.
OPCODES = (
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
)
_CODES = [ord(getattr(pickle, name)) for name in OPCODES]


# The class in Python: its opcodes can be chosen, those of the one in C cannot.
class _Unpickler(pickle._Unpickler):
    """Reads plain values, `Tensor`s and `Foreign`s, and calls no other code."""

    def __init__(self, archive, file):
        super().__init__(file)
        self.archive = archive
        self.foreign, self.storages = set(), {}

    def find_class(self, module, name):
        name = f"{module}.{name}"[:LONGEST_NAME]
        if name not in NAMES:
            self.foreign.add(name)
        return NAMES.get(name) or Foreign(name)

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        if (
            kind != "storage"
            or view not in ([], [None])
            or not isinstance(dtype, np.dtype | Foreign)
            or (type(key), type(count)) != (str, int)
            or len(key) > LONGEST_NAME
        ):
            raise TypeError("A storage must have a type, a key and a size.")
        storage = Storage(self.archive, key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise TypeError("A storage must have one type and size.")
        return storage

    def empty_dict(self):
        self.append(_Dict())

    def call(self):
        arguments = self.stack.pop()
        # Calls of a `Foreign` would only copy their arguments.
        if not isinstance(self.stack[-1], Foreign):
            self.stack[-1] = self.stack[-1](*arguments)

    def drop_attributes(self):
        self.stack.pop()

    dispatch = {code: pickle._Unpickler.dispatch[code] for code in _CODES}
    dispatch |= {
        ord(pickle.EMPTY_DICT): empty_dict,
        ord(pickle.REDUCE): call,
        ord(pickle.NEWOBJ): call,
        ord(pickle.BUILD): drop_attributes,
    }


def load(path):
    """Read a file of `torch.save` without running any code from it.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        `(content, names)`: the object in the file, of plain values, `Tensor`s
        and `Foreign`s; and the list of the classes and functions that became
        `Foreign`.

    Raises:
        ConversionError: the file is damaged, too long, or of another format.
    """
    if not path.is_file():
        raise _damaged(path, "It must be a regular file")
    with path.open("rb") as file:
        old = file.read(len(OLD)) == OLD
    archive = OldArchive(path) if old else Archive(path)
    try:
        value, foreign = archive.load()
    except ConversionError:
        raise
    except Exception as error:  # A damaged pickle raises any error.
        # Its text may quote the file without an end.
        raise _damaged(path, type(error).__name__) from None
    return value, sorted(foreign)
