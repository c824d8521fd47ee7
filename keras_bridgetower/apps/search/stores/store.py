"""`Store`: the interface of all stores; and `FolderStore`, one in a folder."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib

from keras_bridgetower import files
from keras_bridgetower.preprocessing import state_files

HEADER = "search.json"
# The folder of states, as `keep_states` writes it.
STATES = "states"
_LOCK = "search.lock"
_LARGEST = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture of an index, without its vector.

    Args:
        id: str, a UUID computed from the path of the file, or from the table
            and the values of its row.
        sum: str, SHA-256 of the picture's file.
        source: str, full path of the folder or table that was indexed.
        folder: str, full path of the folder that contains `path`.
        path: str, path of the file, with `/`.
        name: str, the `id` of the row in the table, or `""`.
        text: str, the text of the row in the table, or `""`.
    """

    id: str
    sum: str
    source: str
    folder: str
    path: str
    name: str = ""
    text: str = ""

    @property
    def file(self):
        """str, full path of the picture's file."""
        return str(pathlib.Path(self.folder, self.path))


FIELDS = tuple(f.name for f in dataclasses.fields(StoredPicture))


class StoreError(ValueError):
    """A store that cannot be opened, read or written."""


# Methods that call the library of every store.
_OF_LIBRARY = (
    *("pictures", "vectors", "put", "remove"),
    *("count", "nearest", "tidy", "has_ann"),
)


def raises_store_error(method):
    """Make a method of a store raise `StoreError` for errors of its library."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except (StoreError, ImportError, MemoryError):
            raise
        except Exception as error:
            # Messages of these libraries contain paths of their source code.
            raise StoreError(
                f"{self.needed}. Received: store={self.location!r}, which "
                f"failed with {type(error).__name__}"
            ) from error

    return call


class Store:
    """Abstract: pictures with their vectors, and a header.

    A picture is stored with its vector or not at all, even if the process is
    killed while writing.
    """

    def __init_subclass__(cls):
        for name in set(_OF_LIBRARY) & set(vars(cls)):
            setattr(cls, name, raises_store_error(vars(cls)[name]))

    # Name in headers and messages.
    kind = ""
    # Requirement and fix in the message of `StoreError`.
    needed = ""
    # str, path or address of the store, for messages.
    location = ""

    def header(self):
        """Return the header, a dict, or None before `create`."""

    def create(self, header):
        """Create an empty store.

        Args:
            header: dict of plain values; `header["width"]` is the width of a
                vector.
        """

    def write_header(self, header):
        """Replace the header."""

    def writing(self):
        """Return a context in which only this process writes."""

    def pictures(self):
        """Return a list of all `StoredPicture`."""

    def vectors(self, ids):
        """Return the vectors of pictures, and the sums of their files.

        Args:
            ids: list of str.

        Returns:
            dict from id to `(sum, vector)`, without unknown ids.
        """

    def put(self, pictures, vectors):
        """Add pictures, or replace those of the same id.

        Args:
            pictures: list of `StoredPicture`.
            vectors: float32 array `(pictures, width)`.
        """

    def remove(self, ids):
        """Remove pictures by their ids."""

    def count(self):
        """Return the number of pictures."""

    def nearest(self, vector, count, exact=False):
        """Find the pictures whose vectors have the largest dot products.

        Args:
            vector: float32 array `(width,)`.
            count: int, number of pictures.
            exact: bool, whether to skip the ANN structure.

        Returns:
            list of `(StoredPicture, float)`, best first.
        """

    def tidy(self, ann_from):
        """Optimize the store after writing.

        Args:
            ann_from: int, number of pictures from which an approximate
                nearest neighbor (ANN) structure is built or updated; with
                fewer, queries compare all vectors.
        """

    def has_ann(self):
        """Return True if there is an ANN structure."""

    def close(self):
        """Close files and connections."""


class FolderStore(Store):
    """Abstract: a store in a folder of its own.

    The folder is created atomically, with an empty store, by `_make(folder,
    width)`, its header, and what its states are of, a dict, if it has some.

    Args:
        folder: path of the folder, which may not exist yet.

    Raises:
        ValueError: it is a file, or a folder that contains something else.
    """

    needed = (
        "`store` must have a table that can be read and written. It is "
        "damaged, or the disk is full: make room, or delete the folder and "
        "index again"
    )

    def __init__(self, folder):
        self.folder = pathlib.Path(os.path.abspath(folder))
        self.location = str(self.folder)

    def header(self):
        path = self.folder / HEADER
        if not path.is_file():
            return None
        try:
            found = dict(files.read_json(path, _LARGEST))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"`store` must have a readable {HEADER}. Delete the folder and "
                f"index again. Received: store={str(self.folder)!r}: {error}"
            ) from error
        kind = found.get("store", self.kind)
        if kind != self.kind:
            raise ValueError(
                f"`store` must be opened as what it was made as, {kind}. "
                f"Received: store={str(self.folder)!r}, opened as {self.kind}"
            )
        return found

    def create(self, header, states=None):
        def save(folder):
            folder = pathlib.Path(folder)
            self._make(folder, header["width"])
            _write(folder, header)
            if states is not None:
                state_files.begin(folder / STATES, states)

        # Removes only an empty folder.
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        if self.folder.exists():
            raise ValueError(
                "`store` must be a new or empty folder, or one that `index` "
                f"made. Received: store={str(self.folder)!r}"
            )
        files.write_folder(self.folder, save)

    def write_header(self, header):
        _write(self.folder, header)

    def writing(self):
        files.check_no_link(self.folder, "store")
        return files.one_writer(
            self.folder / _LOCK,
            "`store` must be written by one process at a time. Wait for the "
            "other process, or use another folder. "
            f"Received: store={str(self.folder)!r}",
        )


def _write(folder, header):
    text = json.dumps(header, indent=2) + "\n"
    files.write_atomically(
        folder / HEADER, lambda file: file.write(text.encode())
    )
