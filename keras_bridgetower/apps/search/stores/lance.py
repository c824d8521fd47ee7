"""`LanceStore`: vectors in a folder of LanceDB, without a server."""

import dataclasses
import datetime

import numpy as np

from keras_bridgetower.apps.search.stores.store import FIELDS
from keras_bridgetower.apps.search.stores.store import FolderStore
from keras_bridgetower.apps.search.stores.store import StoredPicture
from keras_bridgetower.checks import load_extra

_TABLE = "pictures"
# By then, readers of an older version of the table have finished.
_KEPT = datetime.timedelta(hours=1)
# Vectors per partition of the ANN structure, and partitions that a query reads:
# all of them up to 260,000 vectors.
_PART, _PROBES = 4096, 64
# Ids per SQL condition.
_IDS = 1000


class LanceStore(FolderStore):
    """A folder of LanceDB. Many processes may read it while one writes.

    Each write creates one version of the table, so readers see all of it or
    nothing. The ANN structure clusters the vectors into partitions of about
    4,096 (IVF) and does not compress them. A query reads the 64 nearest
    partitions and vectors that were added since.

    Args:
        folder: path of the folder, which may not exist yet.

    Raises:
        ImportError: LanceDB is not installed.
        ValueError: the path contains something else.
    """

    kind = "lancedb"

    def __init__(self, folder):
        self._lancedb = load_extra("lancedb", "search")
        super().__init__(folder)
        self._opened = None

    def _make(self, folder, width):
        import pyarrow

        texts = [pyarrow.field(name, pyarrow.string()) for name in FIELDS]
        vector = pyarrow.list_(pyarrow.float32(), width)
        schema = pyarrow.schema([*texts, pyarrow.field("vector", vector)])
        database = self._lancedb.connect(folder / self.kind)
        database.create_table(_TABLE, schema=schema)

    @property
    def _table(self):
        if self._opened is None:
            path = self.folder / self.kind
            self._opened = self._lancedb.connect(path).open_table(_TABLE)
        # Includes later writes of other processes.
        self._opened.checkout_latest()
        return self._opened

    def pictures(self):
        found = self._table.search().select(list(FIELDS)).to_arrow()
        return [StoredPicture(**row) for row in found.to_pylist()]

    def vectors(self, ids):
        result = {}
        for condition in _id_conditions(ids):
            found = (
                self._table.search()
                .where(condition)
                .select(["id", "sum", "vector"])
                .to_arrow()
            )
            result |= {
                row["id"]: (row["sum"], np.array(row["vector"], "float32"))
                for row in found.to_pylist()
            }
        return result

    def put(self, pictures, vectors):
        import pyarrow

        table = self._table
        rows = [
            dataclasses.asdict(picture) | {"vector": vector}
            for picture, vector in zip(pictures, vectors, strict=True)
        ]
        merge = table.merge_insert("id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(
            pyarrow.Table.from_pylist(rows, schema=table.schema)
        )

    def remove(self, ids):
        for condition in _id_conditions(ids):
            self._table.delete(condition)

    def count(self):
        return self._table.count_rows()

    def nearest(self, vector, count, exact=False):
        query = self._table.search(np.asarray(vector, "float32"))
        query = query.distance_type("dot").limit(count)
        query = query.bypass_vector_index() if exact else query.nprobes(_PROBES)
        found = query.select([*FIELDS, "_distance"]).to_arrow().to_pylist()
        return [
            # LanceDB's distance is 1 minus the product.
            (StoredPicture(**{n: row[n] for n in FIELDS}), 1 - row["_distance"])
            for row in found
        ]

    def tidy(self, ann_from):
        table = self._table
        if table.count_rows() >= ann_from and not self.has_ann():
            from lancedb.index import IvfFlat

            parts = max(1, table.count_rows() // _PART)
            table.create_index(
                "vector",
                config=IvfFlat(distance_type="dot", num_partitions=parts),
            )
        # Merges small files and adds new rows to the ANN structure.
        table.optimize(cleanup_older_than=_KEPT)

    def has_ann(self):
        return any("vector" in i.columns for i in self._table.list_indices())

    def close(self):
        self._opened = None


def _id_conditions(ids):
    """Yield SQL conditions that each select some of the pictures."""
    for start in range(0, len(ids), _IDS):
        some = (i.replace("'", "''") for i in ids[start : start + _IDS])
        yield "id IN ('" + "', '".join(some) + "')"
