"""An embedding function, `"bridgetower"`, and a reranker for LanceDB."""

from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction
from lancedb.embeddings import register
from lancedb.rerankers import Reranker
from pydantic import PrivateAttr

from keras_bridgetower import BridgeTowerEmbedder
from keras_bridgetower.apps.search.adapters import checked


@register("bridgetower")
class BridgeTowerFunction(EmbeddingFunction):
    """LanceDB's `EmbeddingFunction`: pictures in a table, texts as queries.

    A table saves the name and arguments of the function: import this module
    before you open one. Needs `lancedb`.

    Args:
        preset: str, as for `BridgeTowerEmbedder.from_preset`.
        batch_size, sequence_length, long_texts: as for the same.

    Example:

    ```python
    function = get_registry().get("bridgetower").create(
        preset="bridgetower_large_itm_mlm_itc")

    class Photo(LanceModel):
        path: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()
    ```
    """

    preset: str
    batch_size: int = 32
    sequence_length: int | None = None
    long_texts: str = "refuse"
    _embedder: Any = PrivateAttr()

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._embedder = BridgeTowerEmbedder.from_preset(
            self.preset, self.batch_size, self.sequence_length, self.long_texts
        )

    def ndims(self):
        """Return the width of a vector, an int."""
        return self._embedder.task.projection_dim

    def compute_query_embeddings(self, query, *args, **kwargs):
        """Return a list with the vector of a text or picture.

        Args:
            query: str for a text; PIL image, bytes or array for a picture.
            *args, **kwargs: not used.
        """
        if isinstance(query, str):
            return [np.array(self._embedder.embed_query(query))]
        return self.compute_source_embeddings([query])

    def compute_source_embeddings(self, images, *args, **kwargs):
        """Return a list of the vectors of pictures.

        Args:
            images: list or Arrow array of paths, bytes or base64.
            *args, **kwargs: not used.
        """
        images = self.sanitize_input(images)
        return [np.array(row) for row in self._embedder.embed_images(images)]


class BridgeTowerTableReranker(Reranker):
    """LanceDB's `Reranker`: sorts what a search found by its pictures.

    Needs `lancedb`. Results have `BridgeTowerRetrieval.score` as
    `_relevance_score`.

    Args:
        reranker: a `BridgeTowerReranker`.
        column: str, the column of pictures: paths, bytes or base64.

    Example:

    ```python
    reranker = BridgeTowerTableReranker(
        BridgeTowerReranker.from_preset("bridgetower_large_itm_mlm_itc"),
        column="path")
    table.search(vector).limit(100).rerank(
        reranker=reranker, query_string="a cat on a chair").to_list()
    ```
    """

    def __init__(self, reranker, column="path"):
        super().__init__()
        self.reranker, self.column = reranker, column

    def rerank_vector(self, query, vector_results):
        """Sort the results of a search by vectors."""
        return self._sorted(query, vector_results)

    def rerank_fts(self, query, fts_results):
        """Sort the results of a search by words."""
        return self._sorted(query, fts_results)

    def rerank_hybrid(self, query, vector_results, fts_results):
        """Sort the results of both."""
        both = self.merge_results(vector_results, fts_results)
        return self._sorted(query, both)

    def _sorted(self, query, results):
        pictures = checked(
            results[self.column].to_pylist(),
            "results",
            f"the column {self.column!r}",
        )
        pairs = [(query, picture) for picture in pictures]
        scores = pa.array(self.reranker.predict(pairs), pa.float32())
        results = results.append_column("_relevance_score", scores)
        before = {"_distance", "_score"} & set(results.column_names)
        results = results.drop_columns(sorted(before))
        return results.sort_by([("_relevance_score", "descending")])
