"""A store by what a user calls it."""

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
    """A store from its path or address.

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
            "`store` must be the path of a folder, 'qdrant:' and a path or an "
            f"address, or a store. Received: store={store!r}"
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
    given, store = store, open_store(store)
    try:
        yield store
    finally:
        if given is not store:
            store.close()
