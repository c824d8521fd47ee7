"""`Store`: the interface of all stores, and what they hold."""

import abc
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture of an index, without its vector.

    Args:
        id: str, a UUID made of the source and of what names the picture in
            it.
        sum: str, SHA-256 of the picture's file.
        source: str, full path of the folder or table that it came from.
        folder: str, full path below which `path` lies.
        path: str, path of the file, with `/`.
        name: str, the `id` of the table's row, or `""`.
        text: str, the text of the table's row, or `""`.
    """

    id: str
    sum: str
    source: str
    folder: str
    path: str
    name: str = ""
    text: str = ""


FIELDS = tuple(f.name for f in dataclasses.fields(StoredPicture))


class Store(abc.ABC):
    """Abstract: vectors with their pictures, and a header that says of what.

    A picture stands in it with its vector or not at all, also when the process
    is killed while it writes.
    """

    # How headers and messages call it.
    kind = ""

    @abc.abstractmethod
    def header(self):
        """The header as a dict, or None where nothing was created yet."""

    @abc.abstractmethod
    def create(self, header):
        """Make an empty store.

        Args:
            header: dict of plain values; `header["width"]` is the number of
                numbers of a vector.
        """

    @abc.abstractmethod
    def write_header(self, header):
        """Replace the header."""

    @abc.abstractmethod
    def writing(self):
        """A context in which this process alone writes."""

    @abc.abstractmethod
    def sums(self, source):
        """dict from the id of each picture of a source to its `sum`."""

    @abc.abstractmethod
    def put(self, pictures, vectors):
        """Add pictures; those of the same id are replaced.

        Args:
            pictures: list of `StoredPicture`.
            vectors: float32 array `(pictures, width)`.
        """

    @abc.abstractmethod
    def remove(self, ids):
        """Remove pictures by their ids."""

    @abc.abstractmethod
    def count(self):
        """int, the number of pictures."""

    @abc.abstractmethod
    def nearest(self, vector, count, exact=False):
        """The pictures with the largest product with a vector.

        Args:
            vector: float32 array `(width,)`.
            count: int, how many.
            exact: bool, whether to pass the ANN structure by.

        Returns:
            list of `(StoredPicture, float)`, the best first.
        """

    @abc.abstractmethod
    def tidy(self, ann_from):
        """Make the store fast after it was written to.

        Args:
            ann_from: int, number of pictures from which an approximate
                (ANN) structure is built, or kept up to date; below it,
                queries compare with all vectors.
        """

    @abc.abstractmethod
    def has_ann(self):
        """bool, whether there is an ANN structure."""

    @abc.abstractmethod
    def close(self):
        """Let go of files and connections."""


def checked_vectors(pictures, vectors):
    """Vectors as a float32 array with a row for each picture."""
    vectors = np.ascontiguousarray(vectors, "float32")
    if vectors.ndim != 2 or len(vectors) != len(pictures):
        raise ValueError(
            "`vectors` must have a row for each picture. Received: "
            f"{vectors.shape} for {len(pictures)} pictures"
        )
    return vectors
