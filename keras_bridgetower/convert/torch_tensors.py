"""Tensors that lie in a file of `torch.save`, read when they are asked for."""

import math
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; teaches NumPy bfloat16.
import numpy as np

from keras_bridgetower.convert.torch_zip import Archive

MOST_AXES = 8
# No file holds more numbers; PyTorch counts them in 64 bits.
LARGEST = 1 << 63


class Foreign:
    """What stands for an object whose code is not loaded.

    Args:
        name: str, the global that the file asks for.
    """

    def __init__(self, name):
        self.name = name


class Storage(NamedTuple):
    """A row of numbers in a file.

    Args:
        archive: `Archive`.
        key: str, its entry is `data/<key>`.
        dtype: NumPy dtype, or `Foreign`.
        count: int, how many numbers the file claims.
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
    """A view of a storage. Offset and strides count numbers, not bytes.

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
        """Numbers from the first to the last, both included."""
        if 0 in self.shape:
            return 0
        axes = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in axes)

    def problem(self):
        """Why it is no plain tensor, or None."""
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
        """Whether some stored number may be seen twice."""
        axes = zip(self.strides, self.shape, strict=True)
        reach = 0
        for stride, size in sorted(axis for axis in axes if axis[1] > 1):
            if stride <= reach:
                return self.span > 0
            reach += stride * (size - 1)
        return False

    def read(self):
        """Its values; bfloat16 as float32.

        Returns:
            NumPy array of its own memory.

        Raises:
            ConversionError: the file is damaged there.
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
