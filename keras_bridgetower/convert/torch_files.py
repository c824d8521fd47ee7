"""Reads files of `torch.save` without PyTorch and without running their code.

Such a file is a zip file with a pickle and the numbers of tensors. Python's own
unpickler calls any function that a file names. This one supports only the
opcodes that `torch.save` writes, plain values and tensors. Any other class or
function that a file names becomes a `Foreign`, which does nothing. Values of
tensors are read on demand.
"""

import math
import pickletools
import zipfile
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; adds bfloat16 to NumPy.
import numpy as np

from keras_bridgetower.presets.errors import ConversionError

VERSIONS = range(1, 11)
# Bytes that are read at a time, so that they are still in the processor's
# cache when their checksum is computed.
BLOCK = 1 << 20


class Archive:
    """The entries of a `torch.save` file, by their names in its one folder.

    The file is read and never mapped into memory: if it is truncated in the
    meantime, an error is raised, where with a mapped file the process would
    crash. Each entry has a checksum.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        ConversionError: the file is not an intact file of `torch.save`.
    """

    def __init__(self, path):
        self.path = path
        if not path.is_file():
            raise self._error("It must be a regular file")
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
            raise self._error("Its entries must be of one folder, each once")
        if sum(e.file_size for e in entries) > self.path.stat().st_size:
            raise self._error("It is smaller than its entries")
        version = self.read("version").tobytes().strip()
        if version not in {b"%d" % v for v in VERSIONS}:
            raise self._error(f"Its version is {version!r:.80}")
        if "byteorder" in self._entries:
            order = self.read("byteorder").tobytes()
            if order != b"little":
                raise self._error(f"Its byte order is {order!r:.80}")

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
            raise self._error(f"It has no entry {name!r:.80}")
        entry = self._entries[name]
        content = np.empty(entry.file_size, "uint8")
        try:
            with self._zip.open(entry) as file:
                for start in range(0, len(content), BLOCK):
                    file.readinto(content[start : start + BLOCK])
        except Exception as error:
            if not entry.CRC:
                raise ConversionError(
                    "The file was saved without checksums. Save it again after "
                    "torch.serialization.set_crc32_options(True).",
                    self.path,
                ) from error
            raise self._damaged(error) from error
        self._last = (name, content)
        return content

    def _damaged(self, error):
        return self._error(f"{type(error).__name__}: {error!s:.100}")

    def _error(self, reason):
        return ConversionError(
            f"The file must be an intact file of `torch.save`: {reason}. Fetch "
            "it again, or save its state dict with PyTorch 1.6 or newer.",
            self.path,
        )


MOST_AXES = 8
# PyTorch counts elements in signed 64-bit integers.
MOST_ELEMENTS = 1 << 63


class Foreign:
    """A placeholder for a class or function that is not loaded.

    Args:
        name: str, the class or function that the file names.
    """

    def __init__(self, name):
        self.name = name


class Storage(NamedTuple):
    """A flat array of numbers in a file; tensors are views of it.

    Args:
        archive: `Archive`.
        key: str, the name of its entry in the archive is `data/<key>`.
        dtype: NumPy dtype; a `Foreign` if the type is unknown.
        count: int, the number of elements, as the pickle gives it.
    """

    archive: Archive
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
        """Return the reason why the tensor cannot be read, or None."""
        storage = self.storage
        if isinstance(storage.dtype, Foreign):
            return f"of {storage.dtype.name}"
        numbers = (storage.count, self.offset, *self.shape, *self.strides)
        if (
            len(self.shape) != len(self.strides)
            or len(self.shape) > MOST_AXES
            or any(
                type(n) is not int or not 0 <= n < MOST_ELEMENTS
                for n in numbers
            )
        ):
            return "of an impossible shape"
        if any(self.flags.values()):
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


# The largest pickle in bytes and in opcodes. That of a large model with the
# state of its optimizer has less than 1 MB and 200,000 opcodes.
MOST_BYTES, MOST_OPCODES = 4 << 20, 500_000
# Types of keys that a dict may have. Python hashes them without recursion, and
# a file cannot choose keys with equal hashes: the hashes of text are random,
# and those of integers below `LARGEST_KEY` differ.
KEYS = (str, int, float, bool, type(None), Foreign)
LARGEST_KEY = 1 << 60

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


class Damaged(Exception):
    """The pickle is damaged; the message gives the reason."""


def _expect(condition, reason):
    if not condition:
        raise Damaged(reason)


def _tensor(storage, offset, shape, strides, grad, hooks, flags=None):
    flags = {} if flags is None else flags
    _expect(isinstance(storage, Storage), "a tensor without a storage")
    _expect(
        (type(shape), type(strides), type(flags)) == (tuple, tuple, dict),
        "a tensor without a shape",
    )
    return Tensor(storage, offset, shape, strides, flags)


# Functions that a file may call. The arguments come from the file.
FUNCTIONS = {
    "collections OrderedDict": lambda: {},
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, grad, hooks: tensor,
}
DTYPES = {
    f"torch {name}Storage": np.dtype(dtype) for name, dtype in STORAGES.items()
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
    archive = Archive(path)
    size = archive.size("data.pkl") or 0
    if size > MOST_BYTES:
        raise ConversionError(
            f"The names and shapes of a file must take at most {MOST_BYTES} "
            f"bytes, not {size}. Save its state dict alone.",
            path,
        )
    data = archive.read("data.pkl").tobytes()
    machine = _Machine(archive)
    try:
        value = machine.run(data)
    except Exception as error:  # A damaged pickle raises any error.
        reason = str(error) if isinstance(error, Damaged) else "damaged pickle"
        raise ConversionError(
            "The file must be an intact file of `torch.save` with tensors and "
            f"plain values: {reason}. Fetch it again, or open it with PyTorch "
            "and save its state dict.",
            path,
        ) from None
    return value, sorted(machine.foreign)


class _Machine:
    """Pickle's virtual machine: a stack, marks and a memo."""

    def __init__(self, archive):
        self.archive = archive
        self.stack, self.marks, self.memo = [], [], {}
        self.foreign = set()

    def run(self, data):
        for count, step in enumerate(pickletools.genops(data)):
            opcode, argument, _ = step
            _expect(count < MOST_OPCODES, "more opcodes than any model needs")
            if opcode.name in VALUES:
                self.stack.append(argument)
            elif opcode.name in MAKERS:
                self.stack.append(MAKERS[opcode.name]())
            else:
                _expect(opcode.name in STEPS, f"opcode {opcode.name}")
                STEPS[opcode.name](self, argument)
        (value,) = self.stack
        _expect(not self.marks, "an open mark")
        return value

    def mark(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self):
        values, self.stack = self.stack, self.marks.pop()
        return values

    def pack(self, _):
        values = tuple(self.since_mark())
        self.stack.append(values)

    def pack_last(self, count):
        _expect(len(self.stack) >= count, "an empty stack")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def put(self, index):
        self.memo[index] = self.stack[-1]

    def get(self, index):
        self.stack.append(self.memo[index])

    def append_all(self, values):
        target = self.stack[-1]
        if not isinstance(target, Foreign):
            _expect(type(target) is list, "values for no list")
            target.extend(values)

    def set_all(self, values):
        target = self.stack[-1]
        _expect(len(values) % 2 == 0, "a key without a value")
        if isinstance(target, Foreign):
            return
        _expect(type(target) is dict, "items for no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            _expect(type(key) in KEYS, f"a key of type {type(key).__name__}")
            small = type(key) is not int or abs(key) < LARGEST_KEY
            _expect(small, "a key that is too large")
            target[key] = value

    def find(self, name):
        found = FUNCTIONS.get(name) or DTYPES.get(name)
        if found is None:
            found = Foreign(name.replace(" ", "."))
            self.foreign.add(found.name)
        self.stack.append(found)

    def call(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Foreign):
            _expect(function in FUNCTIONS.values(), "a call of no function")
            _expect(type(arguments) is tuple, "a call without arguments")
            function = function(*arguments)
        self.stack.append(function)

    def build(self, _):
        """Drop the attributes of a dict or a `Foreign`."""
        self.stack.pop()
        _expect(type(self.stack[-1]) in (dict, Foreign), "attributes")

    def persistent(self, _):
        kind, dtype, key, _, count = self.stack.pop()
        _expect(
            kind == "storage"
            and isinstance(dtype, np.dtype | Foreign)
            and type(key) is str
            and type(count) is int,
            "no storage",
        )
        self.stack.append(Storage(self.archive, key, dtype, count))


# Opcodes that push their argument.
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
}
# Opcodes that push a new value.
MAKERS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
# Opcodes that do something else.
STEPS = {
    "PROTO": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.pack,
    "TUPLE1": lambda machine, _: machine.pack_last(1),
    "TUPLE2": lambda machine, _: machine.pack_last(2),
    "TUPLE3": lambda machine, _: machine.pack_last(3),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": lambda machine, _: machine.append_all([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append_all(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_all(
        [machine.stack.pop(-2), machine.stack.pop()]
    ),
    "SETITEMS": lambda machine, _: machine.set_all(machine.since_mark()),
    "GLOBAL": _Machine.find,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
