"""Open a store, read its header, remove pictures: all without models."""

import contextlib
import functools
import os
import pathlib
import re

from keras_bridgetower.apps.search.stores.lance import LanceStore
from keras_bridgetower.apps.search.stores.qdrant import QdrantFolder
from keras_bridgetower.apps.search.stores.qdrant import QdrantServer
from keras_bridgetower.apps.search.stores.store import STATES
from keras_bridgetower.apps.search.stores.store import Store
from keras_bridgetower.apps.search.stores.store import StoreError
from keras_bridgetower.files import file_is_gone
from keras_bridgetower.preprocessing.state_files import differing
from keras_bridgetower.preprocessing.state_files import open_states
from keras_bridgetower.preprocessing.state_files import read_identity

FORMAT = 1
# Fields of a header that are read.
_FIELDS = {"preset", "vectors", "sum", "width", "whole"}


def read_header(store, needed=True):
    """Read the header of an index.

    Args:
        store: `Store`.
        needed: bool, False if there may be no index yet.

    Returns:
        dict, or None if there is no index.

    Raises:
        ValueError: there is no index, or one of another format, or a damaged
            header.
    """
    header = store.header()
    if header is None:
        if not needed:
            return None
        raise ValueError(
            "`store` must have an index. Make one first, with `index`. "
            f"Received: store={store.location!r}"
        )
    if header.get("format") != FORMAT or not _FIELDS <= set(header):
        raise ValueError(
            f"`store` must have a complete header of format {FORMAT}. Index "
            f"again into another store. Received: store={store.location!r}"
        )
    return header


def state_files(store, header):
    """Return the `StateFiles` of an index, and the dict of what they are of.

    Args:
        store: `Store`.
        header: dict, its header.

    Returns:
        `(files, identity)`, or `(None, {})` without states.
    """
    if not header.get("states"):
        return None, {}
    folder = store.folder / STATES
    try:
        identity = read_identity(folder)
    except ValueError as error:
        raise _damaged(folder, error) from error
    return open_states(folder, identity, _damaged), identity


def _damaged(path, error):
    return StoreError(
        "`store` must have the states that `index` wrote. Delete its folder "
        f"and index again. Received: {str(path)!r}: {error}"
    )


def check_model(store, header, models):
    """Check that an index was made by the same models.

    Args:
        store: `Store`.
        header: dict, its header.
        models: `SearchModels`.

    Raises:
        ValueError: the weights or the preprocessing of pictures differ.
    """
    now = models.identity(header["vectors"])
    _, states = state_files(store, header)
    if states:
        now |= models.describe_states(states["kind"])
    other = differing(header | states, now)
    if other:
        raise ValueError(
            "`store` must be an index of the same model. Open it with the "
            f"preset {header['preset']!r}, or index again into another store. "
            f"Received: store={store.location!r}, differing in (index, now): "
            f"{other}"
        )


def check_whole(store, header):
    """Check that the first run of an index has finished."""
    if not header["whole"]:
        raise ValueError(
            "`store` must be a complete index. Run `index` with its pictures "
            f"again. Received: store={store.location!r}, which has "
            f"{store.count()} pictures so far"
        )


def info(store):
    """Describe an index, without opening its models.

    Args:
        store: as in `PictureSearch`.

    Returns:
        dict: `"store"`, `"preset"`, `"dtype"`, `"sum"` of the model's weights,
        `"image_mode"`, `"image_size"` and other preprocessing of pictures and
        texts, `"vectors"` (`"image"` or `"fused"`), `"width"` of a vector,
        `"whole"` (True once a run of `index` has finished), `"pictures"`,
        their number, and `"ann"`, True if there is an ANN structure; with
        states `"states"`, their kind, `"states_shape"` (tokens, width of
        all layers), and `"state_bytes"` of a picture.

    Raises:
        ValueError: there is no index.

    Example:

    ```python
    info("photos.index")["pictures"]
    ```
    """
    with opened(store) as store:
        header = read_header(store)
        facts = {"pictures": store.count(), "ann": store.has_ann()}
        files, states = state_files(store, header)
        if files is not None:
            facts["states"] = states["kind"]
            facts["states_shape"] = states["shape"]
            facts["state_bytes"] = files.format.row_bytes
        return {k: v for k, v in header.items() if k != "format"} | facts


_QDRANT = "qdrant:"
_ADDRESS = re.compile(r"https?://")


def open_store(store):
    """Open a store by its path or address.

    Args:
        store: path of a folder for LanceDB; `"qdrant:FOLDER"` for Qdrant's
            local mode; `"qdrant:http://HOST:6333"`, or the address alone, for
            a Qdrant server; or a `Store`.

    Returns:
        `Store`.

    Raises:
        ValueError: another kind of value.

    Example:

    ```python
    open_store("photos.index")
    open_store("qdrant:photos.qdrant")
    ```
    """
    if isinstance(store, Store):
        return store
    name = os.fspath(store)
    place = name.removeprefix(_QDRANT)
    if _ADDRESS.match(place):
        return QdrantServer(place)
    return QdrantFolder(place) if place != name else LanceStore(place)


@contextlib.contextmanager
def opened(store):
    """Open a store for a while, unless the caller has opened it.

    Args:
        store: as `open_store`.

    Yields:
        `Store`.
    """
    result = open_store(store)
    try:
        yield result
    finally:
        if result is not store:
            result.close()


def remove(store, path):
    """Remove a picture, or those of a folder or table, from an index.

    The files are not deleted. A picture that is still in a folder returns to
    the index when that folder is indexed again.

    Args:
        store: as in `PictureSearch`.
        path: path of a picture, of a folder, with its subfolders, or of an
            indexed table. It need not exist any more.

    Returns:
        list of str, full paths of the removed pictures.

    Raises:
        ValueError: the index has no picture of this path, there is no index,
            or another process is writing to it.

    Example:

    ```python
    remove("photos.index", "photos/ellipse")
    ```
    """
    path = full_path(path)
    is_below = below(path)

    def chosen(pictures):
        found = [p for p in pictures if p.source == path or is_below(p)]
        if not found:
            sources = sorted({picture.source for picture in pictures})
            raise ValueError(
                "`path` must be a picture, a folder or a table of the index. "
                f"Received: path={path!r}; the index has {sources[:5]}"
            )
        return found

    return _remove(store, chosen)


def prune(store, folder=None):
    """Remove pictures whose files no longer exist from an index.

    Mount all disks first: the pictures of an unmounted disk are removed too,
    and would have to be embedded again.

    Args:
        store: as in `PictureSearch`.
        folder: path of a folder, to check only pictures below it, or None.

    Returns:
        list of str, full paths of the removed pictures.

    Raises:
        ValueError: there is no index, or another process is writing to it.

    Example:

    ```python
    prune("photos.index")
    ```
    """

    def chosen(pictures):
        if folder is not None:
            pictures = filter(below(full_path(folder)), pictures)
        return [p for p in pictures if file_is_gone(p.file)]

    return _remove(store, chosen)


def full_path(path):
    """Return the absolute path, with `/`."""
    return pathlib.Path(os.path.abspath(path)).as_posix()


def below(path):
    """Return a function that checks if a picture is a path or below it.

    It follows links, so that each folder has one path.

    Args:
        path: str, full path.

    Returns:
        Callable of a `StoredPicture` that returns a bool.
    """
    real = functools.cache(os.path.realpath)
    if os.path.isdir(path):
        whole = real(path)
    else:
        whole = os.path.join(
            real(os.path.dirname(path)), os.path.basename(path)
        )
    start = os.path.join(whole, "")

    def is_below(picture):
        file = os.path.join(real(picture.folder), picture.path)
        file = os.path.normpath(file)
        return file == whole or file.startswith(start)

    return is_below


def _remove(store, chosen):
    with opened(store) as store:
        header = read_header(store)
        with store.writing():
            found = chosen(store.pictures())
            store.remove([picture.id for picture in found])
            files, _ = state_files(store, header)
            if files is not None:
                files.keep({picture.sum for picture in store.pictures()})
    return sorted(picture.file for picture in found)
