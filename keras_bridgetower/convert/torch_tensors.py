"""Tensors in a `torch.save` file, whose values are read on demand."""

import math
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; teaches NumPy bfloat16.
import numpy as np

from keras_bridgetower.convert.torch_zip import Archive

MOST_AXES = 8
# PyTorch counts elements in signed 64-bit integers.
LARGEST = 1 << 63


class Foreign:
    """A placeholder for a class or function that is not loaded.

    Args:
        name: str, the class or function that the file names.
    """

    def __init__(self, name):
        self.name = name


class Storage(NamedTuple):
    """A flat array of numbers in a file, which tensors are views of.

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
        """Number of stored elements from its first to its last."""
        if 0 in self.shape:
            return 0
        axes = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in axes)

    def problem(self):
        """The reason why it cannot be read as it is stored, or None."""
        storage = self.storage
        if isinstance(storage.dtype, Foreign):
            return f"of {storage.dtype.name}"
        numbers = (storage.count, self.offset, *self.shape, *self.strides)
        if (
            len(self.shape) != len(self.strides)
            or len(self.shape) > MOST_AXES
            or any(type(n) is not int or not 0 <= n < LARGEST for n in numbers)
        ):
            return "of an impossible shape"
        if any(self.flags.values()):
            return "conjugated or negated only when it is read"
        held = storage.archive.size(storage.entry)
        if held != storage.nbytes:
            return f"stored in {held} bytes, not {storage.nbytes}"
        if self.offset + self.span > storage.count:
            return f"beyond its {storage.count} stored numbers"
        if self._overlaps():
            return f"of shape {self.shape}, several from one stored number"
        return None

    def _overlaps(self):
        """Whether two of its elements may be the same stored element."""
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
            NumPy array with memory of its own.

        Raises:
            ConversionError: the file is damaged.
        """
        storage = self.storage
        width = storage.dtype.itemsize
        memory = np.empty(self.span * width, "uint8")
        storage.archive.read_into(storage.entry, memory, self.offset * width)
        values = memory.view(storage.dtype)
        if self.span == math.prod(self.shape) and self._in_order():
            values = values.reshape(self.shape)
        else:
            # An axis of one element may have any stride.
            strides = [
                stride * width if size > 1 else 0
                for size, stride in zip(self.shape, self.strides, strict=True)
            ]
            values = np.array(
                np.lib.stride_tricks.as_strided(values, self.shape, strides),
                order="C",
            )
        if values.dtype == ml_dtypes.bfloat16:
            values = values.astype("float32")
        return values

    def _in_order(self):
        expected = 1
        for size, stride in zip(
            reversed(self.shape), reversed(self.strides), strict=True
        ):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True
