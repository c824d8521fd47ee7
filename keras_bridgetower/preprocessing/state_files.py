"""States of a tower in files, each found by the checksum of its picture.

A segment is a file of rows of bytes, one for each picture, and a file of the
sums of these pictures in the same order, which is written last. Each sum is
followed by the checksum of the index, the picture and its row. A segment is
never changed, only replaced. Pictures with the same content share a row. One
process at a time writes. Training, ranking and search read these files.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import uuid

import numpy as np

from keras_bridgetower.files import checksummed
from keras_bridgetower.files import parse_checksummed
from keras_bridgetower.files import read_text
from keras_bridgetower.files import write_atomically

ROWS, SUMS = ".rows", ".sums"
_IDENTITY = "states.json"
# Bytes of a SHA-256, and of a sum with its checksum.
_SUM, _RECORD = 32, 64


@dataclasses.dataclass(frozen=True)
class StateFormat:
    """Format of stored states.

    Args:
        kind: `"float32"`, `"float16"`, or `"int8"` with a float32 scale for
            each channel of a picture: some are far larger than others.
        shape: tuple of int, `(tokens, width)`.
    """

    kind: str
    shape: tuple

    @property
    def row_bytes(self):
        """Bytes of a picture."""
        size = np.dtype(self.kind).itemsize * math.prod(self.shape)
        # Numbers in int8 have a scale for each channel.
        return size + 4 * self.shape[-1] if self.kind == "int8" else size

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
        largest = np.abs(states).max(axis=1, keepdims=True)
        scale = np.maximum(largest / np.float32(127), np.finfo("float32").tiny)
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
        return rounded * scale[:, None]


KINDS = ("float32", "float16", "int8")


class StateFiles:
    """The states of the pictures of an index.

    Args:
        folder: path, which may not exist yet.
        format: `StateFormat`.
        index: bytes that identify the index in checksums.
        damaged: callable from the path of a damaged file and an error to the
            error that is raised.
    """

    def __init__(self, folder, format, index, damaged):
        self.folder, self.format = pathlib.Path(folder), format
        self._index, self._damaged = index, damaged

    def sums(self):
        """Return the set of the sums of the stored pictures."""
        return {
            record[:_SUM].hex()
            for path in self.folder.glob(f"*{SUMS}")
            for record in _split(self._records(path))
        }

    @functools.cached_property
    def known(self):
        """`sums`, for the process that writes."""
        return self.sums()

    def add(self, sums, states):
        """Write the states of pictures that are not there yet.

        Args:
            sums: list of str, SHA-256 of their files.
            states: float32 array `(pictures, tokens, width)`.
        """
        new = {s: i for i, s in enumerate(sums) if s not in self.known}
        if new:
            rows = self.format.pack(states[list(new.values())])
            pairs = zip(map(bytes.fromhex, new), rows, strict=True)
            self._write([x + self._checksum(x, row) for x, row in pairs], rows)
            self.known.update(new)

    def read(self, sums):
        """Find states, while another process may delete some.

        Args:
            sums: list of str.

        Returns:
            `(states, there)`: `StoredStates` of those that were found, and a
            list of bool, which ones these are.
        """
        found = {bytes.fromhex(sum): None for sum in sums}
        for path in self.folder.glob(f"*{SUMS}"):
            rows = None
            for number, record in enumerate(_split(self._records(path))):
                if record[:_SUM] in found:
                    rows = self._opened(path) if rows is None else rows
                    if rows is not None:
                        found[record[:_SUM]] = path, record, rows[number]
        rows = [found[bytes.fromhex(sum)] for sum in sums]
        there = [row is not None for row in rows]
        return StoredStates([row for row in rows if row], self), there

    def checked(self, path, record, row):
        """Return a copy of a row, once its checksum is found to be right."""
        row, sum = np.array(row), record[:_SUM]
        with self._reading(path.with_suffix(ROWS)):
            if sum + self._checksum(sum, row) != record:
                raise ValueError("a row was changed")
        return row

    def _checksum(self, sum, row):
        found = hashlib.sha256(self._index + sum)
        found.update(row)
        return found.digest()

    def keep(self, sums):
        """Delete the states of all other pictures, and what a kill left.

        Args:
            sums: set of str.
        """
        kept = {bytes.fromhex(sum) for sum in sums}
        self.__dict__.pop("known", None)
        files = [*self.folder.glob(f"*{ROWS}"), *self.folder.glob(f"*{SUMS}")]
        for path in sorted({path.with_suffix(SUMS) for path in files}):
            held = _split(self._records(path))
            live = [n for n, x in enumerate(held) if x[:_SUM] in kept]
            if len(live) == len(held) > 0:
                continue
            if live:
                rows = self._opened(path)[live]
                self._write([held[n] for n in live], rows)
            path.unlink(missing_ok=True)
            path.with_suffix(ROWS).unlink(missing_ok=True)
        for path in self.folder.glob("*.part"):
            path.unlink()

    def _write(self, records, rows):
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}{SUMS}"
        _write(path.with_suffix(ROWS), [np.ascontiguousarray(rows)])
        _write(path, records)

    def _records(self, path):
        """Return the sums and checksums of a segment, b"" if it was deleted."""
        with self._reading(path):
            size = os.path.getsize(path)
            rows = size // _RECORD * self.format.row_bytes
            if (
                size % _RECORD
                or os.path.getsize(path.with_suffix(ROWS)) != rows
            ):
                raise ValueError("it does not fit its rows")
            return path.read_bytes()
        return b""

    @contextlib.contextmanager
    def _reading(self, path):
        """Go on if a segment was deleted; raise if it is damaged."""
        try:
            yield
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _opened(self, path):
        """Return the rows of a segment, or None if it was deleted."""
        with self._reading(path):
            rows = np.memmap(path.with_suffix(ROWS), "uint8", "r")
            return rows.reshape(-1, self.format.row_bytes)
        return None


class StoredStates:
    """States on disk, as an array that is read where it is sliced.

    Args:
        rows: list of tuple, arguments of `StateFiles.checked`.
        files: `StateFiles`.
    """

    def __init__(self, rows, files):
        self._rows, self._files = rows, files

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, some):
        chosen = np.arange(len(self))[some]
        rows = [self._files.checked(*self._rows[i]) for i in chosen]
        return self._files.format.unpack(np.stack(rows))


def _split(data):
    return [data[i : i + _RECORD] for i in range(0, len(data), _RECORD)]


def _write(path, parts):
    write_atomically(path, lambda file: file.writelines(parts))


def damaged_states(path, error):
    return ValueError(
        "`folder` must hold what `keep_states` wrote. Delete it and keep the "
        f"states again. Received: {str(path)!r}: {error}"
    )


def open_states(folder, identity, damaged=damaged_states):
    """Return the `StateFiles` of a folder, by what its states are of.

    `damaged` is as in `StateFiles`, by default that of `keep_states`.
    """
    format = StateFormat(identity["kind"], tuple(identity["shape"]))
    index = checksummed(identity).encode()
    return StateFiles(folder, format, index, damaged)


def begin(folder, identity):
    """Write what a folder's states are of, or check that it is the same.

    Returns:
        dict, what the folder says.

    Raises:
        ValueError: the folder has other states.
    """
    path = pathlib.Path(folder, _IDENTITY)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = checksummed(identity).encode()
        write_atomically(path, lambda file: file.write(text))
    found = read_identity(path.parent)
    check_same(found, identity, folder)
    return found


def read_identity(folder):
    """Return what the states of a folder are of.

    Raises:
        ValueError: the folder has no states, or they were changed.
    """
    try:
        return parse_checksummed(read_text(folder / _IDENTITY))
    except (OSError, ValueError) as error:
        raise damaged_states(folder, error) from error


def differing(found, wanted):
    """Return the wanted values that differ, as a dict of `(found, wanted)`."""
    return {
        k: (found.get(k), v) for k, v in wanted.items() if found.get(k) != v
    }


def check_same(found, wanted, folder):
    """Reject states of another model, other pixels or another format."""
    other = differing(found, wanted)
    if other:
        raise ValueError(
            "The states must be of this model and these settings. Compute them "
            f"again; a folder must be new. Received: {str(folder)!r}, which "
            f"differs in (there, here): {other}"
        )
