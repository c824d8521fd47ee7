"""States of indexed pictures: a query reranks with them, and opens no file.

Each picture has a file of its own, named by the SHA-256 of the picture, so
that pictures with the same content share it. It begins with a checksum of the
index, the picture and the states.
"""

import contextlib
import dataclasses
import hashlib
import math
import pathlib

import numpy as np

from keras_bridgetower.apps.search.stores.store import StoreError
from keras_bridgetower.files import write_atomically

KINDS = ("float32", "float16", "int8")
SUFFIX = ".states"
# Bytes of the checksum at the start of a file.
_CHECKSUM = 32


@dataclasses.dataclass(frozen=True)
class StateFormat:
    """Format of stored states.

    Args:
        kind: `"float32"`, `"float16"`, or `"int8"` with a float32 scale for
            each token.
        shape: tuple of int, `(layers, tokens, width)`.
    """

    kind: str
    shape: tuple

    @property
    def row_bytes(self):
        """Bytes of a picture."""
        size = math.prod(self.shape)
        scales = 4 * math.prod(self.shape[:2]) if self.kind == "int8" else 0
        return np.dtype(self.kind).itemsize * size + scales

    def pack(self, states):
        """Convert float32 `(pictures, *shape)` to bytes `(pictures, n)`."""
        count = len(states)
        if self.kind != "int8":
            if np.abs(states).max() > np.finfo(self.kind).max:
                raise ValueError(
                    "`states` must be 'float32' or 'int8' for this model, "
                    "whose states are too large for float16."
                )
            packed = states.astype(self.kind).reshape(count, -1)
            return packed.view("uint8")
        scale = np.abs(states).max(-1, keepdims=True) / np.float32(127)
        scale = np.maximum(scale, np.finfo("float32").tiny)
        rounded = np.rint(states / scale).astype("int8")
        parts = (rounded, scale.astype("float32"))
        parts = [x.reshape(count, -1).view("uint8") for x in parts]
        return np.concatenate(parts, axis=1)

    def unpack(self, rows):
        """Convert bytes `(pictures, n)` to float32 `(pictures, *shape)`."""
        shape = (len(rows), *self.shape)
        if self.kind != "int8":
            return rows.view(self.kind).reshape(shape).astype("float32")
        size = math.prod(self.shape)
        rounded = rows[:, :size].view("int8").reshape(shape)
        scale = np.ascontiguousarray(rows[:, size:]).view("float32")
        return rounded * scale.reshape(*shape[:-1], 1)


class StateFiles:
    """The states of the pictures of an index.

    Args:
        folder: path, which may not exist yet.
        format: `StateFormat`.
        index: bytes that identify the index in checksums.

    Pictures are named by the SHA-256 of their files, str. Methods raise
    `StoreError` if files are damaged.
    """

    def __init__(self, folder, format, index=b""):
        self.folder, self.format = pathlib.Path(folder), format
        self._index = index

    def _path(self, sum):
        return self.folder / f"{sum}{SUFFIX}"

    def has(self, sum):
        """Return whether there are states of a picture."""
        return self._path(sum).exists()

    def add(self, sums, states):
        """Write the states of pictures that are not there yet.

        Args:
            sums: list of str.
            states: float32 array `(pictures, layers, tokens, width)`.
        """
        self.folder.mkdir(exist_ok=True)
        rows = self.format.pack(states)
        for sum, row in zip(sums, rows, strict=True):
            if not self.has(sum):
                data = self._checksum(sum, row) + row.tobytes()
                write_atomically(
                    self._path(sum), lambda file, data=data: file.write(data)
                )

    def read(self, sums):
        """Find states, while another process may delete some.

        Args:
            sums: list of str.

        Returns:
            `(states, there)`: `StoredStates` of those that were found, and a
            list of bool, which ones these are.
        """
        found = [(sum, self._open(sum)) for sum in sums]
        there = [data is not None for _, data in found]
        return StoredStates([x for x in found if x[1] is not None], self), there

    def _open(self, sum):
        """Map a file to memory, which outlives it; None if it is gone."""
        with self._named(sum):
            try:
                data = np.memmap(self._path(sum), "uint8", "r")
            except FileNotFoundError:
                return None
            if len(data) != _CHECKSUM + self.format.row_bytes:
                raise ValueError("its size is not that of the states")
            return data

    def checked(self, sum, data):
        """Return the row of bytes in a file, if its checksum is right."""
        data = np.array(data)
        row = data[_CHECKSUM:]
        with self._named(sum):
            if self._checksum(sum, row) != data[:_CHECKSUM].tobytes():
                raise ValueError("it was changed")
        return row

    def _checksum(self, sum, row):
        found = hashlib.sha256(self._index + sum.encode())
        found.update(row)
        return found.digest()

    def keep(self, sums):
        """Delete the states of all other pictures, and what a kill left.

        Args:
            sums: set of str.
        """
        kept = {self._path(sum) for sum in sums}
        for path in self.folder.glob("*"):
            if path not in kept:
                path.unlink()

    @contextlib.contextmanager
    def _named(self, sum):
        """Raise a `StoreError` that names a damaged file."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise StoreError(
                "`store` must have the states that `index` wrote. Delete its "
                f"folder and index again. Received: {str(self._path(sum))!r}: "
                f"{error}"
            ) from error


class StoredStates:
    """States on disk, as an array that is read where it is sliced.

    Args:
        rows: list of tuple, arguments of `StateFiles.checked`.
        files: `StateFiles`.
    """

    def __init__(self, rows, files):
        self._rows, self._files = rows, files
        self.shape = (len(rows), *files.format.shape)

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, some):
        rows = [self._files.checked(*row) for row in self._rows[some]]
        return self._files.format.unpack(np.stack(rows))
