"""Open a store by its path or address."""

import contextlib
import os
import re

from keras_bridgetower.apps.search.stores.lance import LanceStore
from keras_bridgetower.apps.search.stores.qdrant import QdrantFolder
from keras_bridgetower.apps.search.stores.qdrant import QdrantServer
from keras_bridgetower.apps.search.stores.store import Store

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
    if not isinstance(store, (str, os.PathLike)) or not os.fspath(store):
        raise ValueError(
            "`store` must be the path of a folder, 'qdrant:' with a path or "
            f"an address, or a store. Received: store={store!r}"
        )
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
