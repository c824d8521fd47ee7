"""Reads files of `torch.save` without PyTorch and without running their code.

Such a file holds a pickle and the numbers of tensors. Python's own unpickler
calls any function that a file names. Here it gets only the opcodes that
`torch.save` writes, plain values and tensors. Any other class or function that
a file names becomes a `Foreign`, which does nothing. Values of tensors are read
on demand.
"""

import io
import math
import pickle
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; adds bfloat16 to NumPy.
import numpy as np

from keras_bridgetower.convert import torch_archives
from keras_bridgetower.presets.errors import ConversionError

MOST_AXES = 8
# PyTorch counts elements in signed 64-bit integers.
MOST_ELEMENTS = 1 << 63


class Foreign:
    """A placeholder for a class or function that is not loaded.

    It takes what a pickle puts into an object, and drops it.

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
        archive: an archive of `torch_archives`.
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
        """Return the reason why the tensor cannot be read, or None."""
        storage = self.storage
        if isinstance(storage.dtype, Foreign):
            return f"of {storage.dtype.name}"
        # Many tensors may share one long shape.
        axes = (*self.shape[:MOST_AXES], *self.strides[:MOST_AXES])
        numbers = (storage.count, self.offset, *axes)
        if (
            len(self.shape) != len(self.strides)
            or len(self.shape) > MOST_AXES
            or any(
                type(n) is not int or not 0 <= n < MOST_ELEMENTS
                for n in numbers
            )
        ):
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


# Types of keys that a dict may have. Python hashes them without recursion, and
# a file cannot choose keys with equal hashes: the hashes of text are random,
# and those of integers below `LARGEST_KEY` differ.
KEYS = (str, int, float, bool, type(None), Foreign)
LARGEST_KEY = 1 << 60
# Characters of names that the values of a file may repeat.
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
    """A dict whose keys a file cannot choose to take time."""

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


# What a file may name. The arguments of functions come from the file.
NAMES = {
    "collections.OrderedDict": lambda: _Dict(),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, grad, hooks: tensor,
    **{f"torch.{n}Storage": np.dtype(dtype) for n, dtype in STORAGES.items()},
}
# The opcodes that `torch.save` writes, by their names in `pickle`.
OPCODES = (
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
)


# The class in Python, whose opcodes can be chosen; that in C has all.
class _Unpickler(pickle._Unpickler):
    """Reads plain values, `Tensor`s and `Foreign`s, and calls no other code."""

    def __init__(self, archive, content):
        super().__init__(io.BytesIO(content.tobytes()))
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

    dispatch = {
        ord(getattr(pickle, name)): pickle._Unpickler.dispatch[
            ord(getattr(pickle, name))
        ]
        for name in OPCODES
    }
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
    archive = torch_archives.open_archive(path)
    unpickler = _Unpickler(archive, archive.pickle)
    try:
        value = unpickler.load()
        if archive.others:
            others = (_Unpickler(archive, x).load() for x in archive.others)
            archive.place(unpickler.storages, *others)
    except ConversionError:
        raise
    except Exception as error:  # A damaged pickle raises any error.
        raise ConversionError(
            "The file must be an intact file of `torch.save` with tensors and "
            f"plain values: {type(error).__name__}. Fetch it again, or open it "
            "with PyTorch and save its state dict.",
            path,
        ) from None
    return value, sorted(unpickler.foreign)
