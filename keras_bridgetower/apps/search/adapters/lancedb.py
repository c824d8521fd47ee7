"""An embedding function for LanceDB, registered as `"bridgetower"`."""

from typing import Any

import numpy as np
from lancedb.embeddings import EmbeddingFunction
from lancedb.embeddings import register
from pydantic import PrivateAttr

from keras_bridgetower import BridgeTowerEmbedder


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
