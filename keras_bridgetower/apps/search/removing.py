"""Remove pictures from an index, without opening its models."""

import functools
import os

from keras_bridgetower.apps.search.header import needed_header
from keras_bridgetower.apps.search.reading import full_path
from keras_bridgetower.apps.search.stores.opened import opened
from keras_bridgetower.files import file_is_gone


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


def belongs_to(source):
    """Return a function that checks if a picture belongs to a source.

    Args:
        source: str, full path of a folder or table, which need not exist.

    Returns:
        Callable that takes a `StoredPicture` and returns a bool: True if it
        was added by `index` with this source, or by `index` with another
        folder and is below this source.
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
