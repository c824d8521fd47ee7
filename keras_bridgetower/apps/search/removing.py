"""Removes pictures from an index. No model is opened."""

import functools
import os

from keras_bridgetower.apps.search.header import needed_header
from keras_bridgetower.apps.search.reading import full_path
from keras_bridgetower.apps.search.stores.opened import opened
from keras_bridgetower.files import file_is_gone


def remove(store, path):
    """Remove a picture, or those of a folder or table, from an index.

    The files themselves stay. A picture that is still in a folder returns to
    the index when that folder is indexed again.

    Args:
        store: as `PictureSearch`.
        path: path of a picture, of a folder, with its subfolders, or of a
            table that was indexed. It need not exist any more.

    Returns:
        list of str, the full paths of the pictures that were removed.

    Raises:
        ValueError: the index holds no picture of this path, there is no
            index, or another process writes it.

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
                f"Received: path={path!r}, of an index of {sources[:5]}"
            )
        return found

    return _remove(store, chosen)


def prune(store, folder=None):
    """Remove the pictures whose files are gone from an index.

    Mount all disks first: the pictures of a disk that is not mounted are
    gone, too, and would have to be embedded again.

    Args:
        store: as `PictureSearch`.
        folder: path of a folder, to look at pictures below it only, or None.

    Returns:
        list of str, the full paths of the pictures that were removed.

    Raises:
        ValueError: there is no index, or another process writes it.

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


def below(path):
    """Return a function that tells whether a picture is a path or below it.

    Links to folders are followed, so that a folder has one name.

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


def of_source(source):
    """Return a function that tells whether a source decides over a picture.

    Args:
        source: str, full path of a folder or table, which may be gone.

    Returns:
        Callable of a `StoredPicture` that returns a bool: True for those that
        a run of `index` over the source added, and for those below the source
        that runs over other folders added.
    """
    is_below = below(source)

    def is_own(picture):
        of_folder = picture.source == picture.folder
        return picture.source == source or (of_folder and is_below(picture))

    return is_own


def _remove(store, chosen):
    with opened(store) as store:
        needed_header(store)
        with store.writing():
            found = chosen(store.pictures())
            store.remove([picture.id for picture in found])
    return sorted(picture.file for picture in found)
