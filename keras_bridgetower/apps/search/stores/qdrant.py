"""Vectors in Qdrant: `QdrantFolder` (local mode) and `QdrantServer`."""

import contextlib
import weakref

import numpy as np

from keras_bridgetower.apps.search.stores import store
from keras_bridgetower.checks import load_extra

COLLECTION = "keras_bridgetower_pictures"
# Points per request; a vector takes about 10 kB of JSON.
_AT_ONCE = 256
# Neighbors that the ANN structure of a server examines per query (`hnsw_ef`).
_EXAMINED = 512


class _QdrantStore(store.Store):
    """Abstract: a collection of Qdrant, accessed through `_client()`.

    `_search_params(exact)` returns the parameters for the ANN structure, or
    None without one.
    """

    collection = COLLECTION

    def pictures(self):
        found, offset = [], None
        while True:
            points, offset = self._client().scroll(
                self.collection, limit=10_000, offset=offset, with_payload=True
            )
            found += [_picture(point) for point in points]
            if offset is None:
                return found

    def vectors(self, ids):
        points = self._client().retrieve(
            self.collection, ids, with_payload=["sum"], with_vectors=True
        )
        return {
            str(p.id): (p.payload["sum"], np.array(p.vector, "float32"))
            for p in points
        }

    def put(self, pictures, vectors):
        models = _models()
        points = [
            models.PointStruct(
                id=picture.id,
                vector=vector.tolist(),
                payload={
                    n: getattr(picture, n) for n in store.FIELDS if n != "id"
                },
            )
            for picture, vector in zip(pictures, vectors, strict=True)
        ]
        self._client().upload_points(
            self.collection, points, batch_size=_AT_ONCE, wait=True
        )

    def remove(self, ids):
        if ids:
            self._client().delete(self.collection, list(ids), wait=True)

    def count(self):
        return self._client().count(self.collection, exact=True).count

    def nearest(self, vector, count, exact=False):
        points = self._client().query_points(
            self.collection,
            query=[float(x) for x in vector],
            limit=count,
            search_params=self._search_params(exact),
            with_payload=True,
        )
        return [
            (_picture(point), float(point.score)) for point in points.points
        ]

    def _create_collection(self, client, width, **more):
        models = _models()
        # Vectors have length 1: their product is their cosine.
        size = models.VectorParams(size=width, distance=models.Distance.DOT)
        client.create_collection(self.collection, vectors_config=size, **more)


def _models():
    return load_extra("qdrant_client.models", "search")


def _picture(point):
    return store.StoredPicture(id=str(point.id), **point.payload)


class QdrantFolder(store.FolderStore, _QdrantStore):
    """Qdrant's local mode, in a folder that one process at a time can open.

    It has no ANN structure, keeps all vectors in memory, and reads its files
    with Python's pickle: open only folders that you made yourself.

    Args:
        folder: path of the folder, which may not exist yet.

    Raises:
        ImportError: `qdrant-client` is not installed.
        ValueError: the path contains something else, or another process has
            it open.
    """

    kind = "qdrant"

    def __init__(self, folder):
        self._package = load_extra("qdrant_client", "search")
        super().__init__(folder)
        self._opened = None

    def _make(self, folder, width):
        with contextlib.closing(self._open(folder)) as client:
            self._create_collection(client, width)

    def _open(self, folder):
        try:
            return self._package.QdrantClient(path=str(folder / self.kind))
        except RuntimeError as error:
            raise store.StoreError(
                "`store` must be open in one process at a time, as Qdrant's "
                f"local mode is. Received: store={self.location!r}"
            ) from error

    def _client(self):
        if self._opened is None:
            self._opened = self._open(self.folder)
            # The client's own cleanup comes too late at the end of the process.
            weakref.finalize(self, self._opened.close)
        return self._opened

    def _search_params(self, exact):
        return None

    def tidy(self, ann_from):
        """Do nothing: the local mode always compares all vectors."""

    def has_ann(self):
        return False

    def close(self):
        if self._opened is not None:
            self._opened.close()
        self._opened = None


class QdrantServer(_QdrantStore):
    """A collection of a Qdrant server, from version 1.16.

    Any number of processes may read and write it.

    Args:
        address: str, such as `"http://localhost:6333"`; or `":memory:"` for a
            store in memory.
        collection: str, name of the collection.
        api_key: str, or None.

    Raises:
        ImportError: `qdrant-client` is not installed.
    """

    kind = "qdrant server"
    needed = "`store` must be the address of a running Qdrant server"
    # Key of the header in the metadata of the collection.
    _HEADER = "keras_bridgetower"

    def __init__(self, address, collection=COLLECTION, api_key=None):
        self.address = self.location = address
        self.collection = collection
        self._server = load_extra("qdrant_client", "search").QdrantClient(
            location=address, api_key=api_key, check_compatibility=False
        )

    def _client(self):
        return self._server

    def _search_params(self, exact):
        models = _models()
        return models.SearchParams(hnsw_ef=_EXAMINED, exact=exact)

    @store.raises_store_error
    def header(self):
        if not self._server.collection_exists(self.collection):
            return None
        info = self._server.get_collection(self.collection)
        # Of a collection that `index` did not make, it is incomplete.
        return (info.config.metadata or {}).get(self._HEADER) or {}

    @store.raises_store_error
    def create(self, header):
        self._create_collection(
            self._server, header["width"], metadata={self._HEADER: header}
        )

    @store.raises_store_error
    def write_header(self, header):
        self._server.update_collection(
            self.collection, metadata={self._HEADER: header}
        )

    @contextlib.contextmanager
    def writing(self):
        yield

    def tidy(self, ann_from):
        """Set the number of vectors from which the server builds its ANN."""
        models = _models()
        info = self._server.get_collection(self.collection)
        width = info.config.params.vectors.size
        # In kB of float32; 0 would disable it.
        size = max(1, ann_from * width * 4 // 1024)
        self._server.update_collection(
            self.collection,
            optimizers_config=models.OptimizersConfigDiff(
                indexing_threshold=size
            ),
        )

    def has_ann(self):
        info = self._server.get_collection(self.collection)
        return bool(info.indexed_vectors_count)

    def close(self):
        self._server.close()
