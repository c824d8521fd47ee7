"""States of indexed pictures: a query reranks with them, and opens no file.

A segment is a file of rows of bytes, one for each picture, and a file of the
sums of these pictures in the same order, which is written last. Pictures with
the same content share a row. One process at a time writes.
"""

import dataclasses
import functools
import math
import os
import pathlib
import uuid

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.files import write_atomically

ROWS, SUMS = ".rows", ".sums"
_SUM = 32  # Bytes of a SHA-256. A deleted picture has zeros.


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

    def __post_init__(self):
        check_choice("states", self.kind, KINDS)

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


KINDS = ("float32", "float16", "int8")


class StateFiles:
    """The states of the pictures of an index.

    Args:
        folder: path, which may not exist yet.
        format: `StateFormat`.
    """

    def __init__(self, folder, format):
        self.folder, self.format = pathlib.Path(folder), format

    def sums(self):
        """Return the set of the sums of the stored pictures."""
        segments = self.folder.glob(f"*{SUMS}")
        return {
            sum.hex()
            for path in segments
            for sum in _split(_read_sums(path))
            if any(sum)
        }

    @functools.cached_property
    def known(self):
        """`sums`, for the process that writes."""
        return self.sums()

    def _places(self, sums):
        """Return `(segment, number)` of the row of each sum, or None."""
        # No Python objects for all pictures of the index: with tens of
        # thousands, every few queries would wait for the garbage collector.
        named = sorted(self.folder.glob(f"*{SUMS}"))
        data = [_read_sums(path) for path in named]
        ends = np.cumsum([len(part) // _SUM for part in data], dtype=int)
        held = np.frombuffer(b"".join(data), f"S{_SUM}")
        if not len(held):
            return [None] * len(sums)
        wanted = np.array([bytes.fromhex(sum) for sum in sums], held.dtype)
        order = np.argsort(held)
        nearest = np.searchsorted(held, wanted, sorter=order)
        rows = order[np.minimum(nearest, len(held) - 1)]
        of = np.searchsorted(ends, rows, "right")
        numbers = rows - np.concatenate([[0], ends])[of]
        segments = [path.with_suffix(ROWS) for path in named]
        found = zip(of, numbers, held[rows] == wanted, strict=True)
        return [
            (segments[segment], number) if is_there else None
            for segment, number, is_there in found
        ]

    def add(self, sums, states):
        """Write the states of pictures that are not there yet.

        Args:
            sums: list of str, SHA-256 of their files.
            states: float32 array `(pictures, layers, tokens, width)`.
        """
        new = {s: i for i, s in enumerate(sums) if s not in self.known}
        if new:
            rows = self.format.pack(states[list(new.values())])
            self._write([bytes.fromhex(sum) for sum in new], rows)
            self.known.update(new)

    def read(self, sums, check=True):
        """Find states, while another process may delete some.

        Args:
            sums: list of str.
            check: bool, whether to leave out states that are being deleted,
                which are zeros. It reads all of them.

        Returns:
            `(states, there)`: `StoredStates` of those that were found, and a
            list of bool, which ones these are.
        """
        opened, rows, there = {}, [], []
        for place in self._places(sums):
            row = None
            if place:
                path, number = place
                if path not in opened:
                    opened[path] = self._opened(path)
                if opened[path] is not None:
                    row = opened[path][number]
            there.append(row is not None and (not check or bool(row.any())))
            if there[-1]:
                rows.append(row)
        return StoredStates(rows, self.format), there

    def keep(self, sums):
        """Delete the states of all other pictures, and what a kill left.

        Args:
            sums: set of str.
        """
        kept = {bytes.fromhex(sum) for sum in sums}
        self.__dict__.pop("known", None)
        for path in sorted(self.folder.glob(f"*{ROWS}")):
            named = path.with_suffix(SUMS)
            held = _split(_read_sums(named))
            live = [n for n, sum in enumerate(held) if sum in kept]
            if len(live) == len(held) > 0:
                continue
            if 2 * len(live) > len(held):
                self._blank(path, held, set(live))
                continue
            if live:
                rows = np.array(self._opened(path)[live])
                self._write([held[n] for n in live], rows)
            named.unlink(missing_ok=True)
            path.unlink()
        for path in self.folder.glob("*.part"):
            path.unlink()

    def _blank(self, path, held, live):
        """Overwrite rows with zeros, of which there are few."""
        sums = [s if n in live else bytes(_SUM) for n, s in enumerate(held)]
        _write_sums(path.with_suffix(SUMS), sums)
        rows = self._opened(path, "r+")
        for number in set(range(len(held))) - live:
            rows[number] = 0
        rows.flush()

    def _write(self, sums, rows):
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}{ROWS}"
        rows = np.ascontiguousarray(rows)
        write_atomically(path, lambda file: file.write(rows))
        _write_sums(path.with_suffix(SUMS), sums)

    def _opened(self, path, mode="r"):
        """Return the rows of a segment, or None if it was deleted."""
        try:
            rows = os.path.getsize(path) // self.format.row_bytes
            shape = rows, self.format.row_bytes
            return np.memmap(path, "uint8", mode, shape=shape)
        except FileNotFoundError:
            return None


class StoredStates:
    """States on disk, as an array that is read where it is sliced.

    Args:
        rows: list of arrays of bytes.
        format: `StateFormat`.
    """

    def __init__(self, rows, format):
        self._rows, self._format = rows, format
        self.shape = (len(rows), *format.shape)

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, some):
        return self._format.unpack(np.stack(self._rows[some]))


def _read_sums(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _split(data):
    return [data[i : i + _SUM] for i in range(0, len(data), _SUM)]


def _write_sums(path, sums):
    write_atomically(path, lambda file: file.write(b"".join(sums)))
