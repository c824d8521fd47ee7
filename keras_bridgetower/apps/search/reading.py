"""Read the pictures of a folder or table, and compare them with an index."""

import dataclasses
import hashlib
import io
import os
import pathlib
import uuid

from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.search.stores.store import StoredPicture
from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import open_file

# Maximum bytes of a file that is read once. Larger files are read twice.
_READ_ONCE = 64 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class ReadPicture:
    """A row of a source whose file was read.

    Args:
        stored: `StoredPicture`.
        image: input for `embed`; None if the index already has its vector, or
            it cannot be read.
        error: str, the reason why it cannot be read, or None.
        equal: str, the id of an indexed picture with the same content, if the
            index does not have this one; or None.
    """

    stored: StoredPicture
    image: object = None
    error: str | None = None
    equal: str | None = None


class KnownPictures(dict):
    """Pictures of an index at the start of a run: dict from id to picture.

    Args:
        pictures: list of `StoredPicture`.
        fused: bool, whether vectors also depend on the text.
    """

    def __init__(self, pictures, fused):
        super().__init__((picture.id, picture) for picture in pictures)
        self._fused = fused
        self._equal = {self.content(p): p.id for p in pictures}

    def content(self, picture):
        """Return the content that determines the vector of a picture."""
        return picture.sum, picture.text if self._fused else ""

    def holds(self, picture):
        """Return True if the index has the vector of this content."""
        return picture.id in self and self[picture.id].sum == picture.sum

    def equal(self, picture):
        """Return the id of a picture with the same content, or None."""
        return self._equal.get(self.content(picture))


class PictureReader:
    """Read the pictures of the rows of a source.

    Args:
        source: path of the folder or table.
        converter: the `BridgeTowerImageConverter` of the model.
        known: `KnownPictures`.
    """

    def __init__(self, source, converter, known):
        self._source = full_path(source)
        # A link to a folder is the same folder.
        self._real = os.path.realpath(source)
        self._converter = converter
        self._known = known

    def read(self, row):
        """Read a `Row`. Return a `ReadPicture`."""
        stored = self._stored(row)
        if row.error:
            return ReadPicture(stored, error=row.error)
        return self._opened(stored)

    def decode(self, read):
        """Read a picture again, with its pixels.

        Args:
            read: `ReadPicture` whose `equal` is no longer in the index.

        Returns:
            `ReadPicture`.
        """
        return self._opened(read.stored, always=True)

    def _opened(self, stored, always=False):
        try:
            check_utf8(stored.path)
            path = pathlib.Path(stored.file)
            with open_regular(path) as file:
                # Reads the disk once for both the sum and the pixels.
                size = os.fstat(file.fileno()).st_size
                whole = io.BytesIO(file.read()) if size <= _READ_ONCE else file
                digest = hashlib.file_digest(whole, "sha256").hexdigest()
                stored = dataclasses.replace(stored, sum=digest)
                if not always:
                    if self._known.holds(stored):
                        return ReadPicture(stored)
                    if equal := self._known.equal(stored):
                        return ReadPicture(stored, equal=equal)
                whole.seek(0)
                image = open_file(whole, path, "image")
                square = as_square(image, self._converter, "image")
                return ReadPicture(stored, square)
        except (OSError, ValueError) as error:
            return ReadPicture(stored, error=str(error))

    def _stored(self, row):
        named = [row.values.get(n, "") for n in ("image", ID, "text")]
        path, name, text = (x if isinstance(x, str) else "" for x in named)
        folder = full_path(row.folder)
        if folder == self._source:
            # Overlapping folders share their pictures.
            named = [os.path.join(self._real, path)]
        else:
            named = [self._source, path, name, text]
        return StoredPicture(
            id=_uuid(*named),
            sum="",
            source=self._source,
            folder=folder,
            path=path or f"row {row.number}",
            name=name,
            text=text,
        )


def full_path(path):
    """Return the absolute path, with `/`."""
    return check_utf8(pathlib.Path(os.path.abspath(path)).as_posix())


def check_utf8(name):
    """Check that a name of a file or folder can be stored."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "Names of files and folders must be UTF-8. Rename this one. "
            f"Received: {name!r}"
        ) from error
    return name


def _uuid(*parts):
    """Return a UUID computed from texts."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"))
    return str(uuid.UUID(bytes=digest.digest()[:16]))
