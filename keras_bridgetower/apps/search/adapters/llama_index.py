"""Embeddings and a reranker for LlamaIndex."""

import asyncio
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore

from keras_bridgetower import BridgeTowerEmbedder
from keras_bridgetower import BridgeTowerReranker
from keras_bridgetower.apps.search.adapters import checked


class BridgeTowerMultiModalEmbedding(MultiModalEmbedding):
    """LlamaIndex's `MultiModalEmbedding` with a preset.

    Needs `llama-index-core`. The async methods run in a thread.

    Args:
        preset: str, as for `BridgeTowerEmbedder.from_preset`.
        sequence_length, long_texts: as for the same.
        embed_batch_size: int, texts or pictures per batch.

    Example:

    ```python
    model = BridgeTowerMultiModalEmbedding(
        preset="bridgetower_large_itm_mlm_itc", sequence_length=200)
    vector = model.get_image_embedding("photo.png")
    ```
    """

    preset: str
    sequence_length: int | None = None
    long_texts: str = "refuse"

    _embedder: BridgeTowerEmbedder = PrivateAttr()

    def __init__(self, preset: str, **kwargs: Any) -> None:
        super().__init__(**{"model_name": preset, **kwargs}, preset=preset)
        self._embedder = BridgeTowerEmbedder.from_preset(
            preset, self.embed_batch_size, self.sequence_length, self.long_texts
        )

    def _get_image_embedding(self, img_file_path):
        return self._embedder.embed_images([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths):
        return self._embedder.embed_images(img_file_paths)

    def _get_text_embedding(self, text):
        return self._embedder.embed_query(text)

    def _get_text_embeddings(self, texts):
        return self._embedder.embed_documents(texts)

    def _get_query_embedding(self, query):
        return self._embedder.embed_query(query)

    async def _aget_image_embedding(self, img_file_path):
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    async def _aget_text_embedding(self, text):
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query):
        return await asyncio.to_thread(self._get_query_embedding, query)


class BridgeTowerRerank(BaseNodePostprocessor):
    """LlamaIndex's `BaseNodePostprocessor`: the pictures that fit a query best.

    Needs `llama-index-core`. Nodes are `ImageNode`s with a picture in base64
    or a path; URLs are not fetched.

    Args:
        preset: str, as for `BridgeTowerReranker.from_preset`.
        top_n: int, how many nodes are kept; None for all.
        batch_size: int, pictures per forward pass.

    Example:

    ```python
    rerank = BridgeTowerRerank(
        preset="bridgetower_large_itm_mlm_itc", top_n=3)
    rerank.postprocess_nodes(nodes, query_str="a cat on a chair")
    ```
    """

    preset: str
    top_n: int | None = None
    batch_size: int = 32

    _reranker: BridgeTowerReranker = PrivateAttr()

    def __init__(self, preset: str, **kwargs: Any) -> None:
        super().__init__(preset=preset, **kwargs)
        self._reranker = BridgeTowerReranker.from_preset(
            preset, self.batch_size
        )

    def _postprocess_nodes(self, nodes, query_bundle=None):
        if query_bundle is None:
            raise ValueError("`query_bundle` or `query_str` must be given.")
        pictures = [
            getattr(node.node, "image", None)
            or getattr(node.node, "image_path", None)
            for node in nodes
        ]
        checked(pictures, "nodes", "`image` or `image_path` of an `ImageNode`")
        found = self._reranker.rank(
            query_bundle.query_str, pictures, self.top_n
        )
        return [
            NodeWithScore(node=nodes[one["corpus_id"]].node, score=one["score"])
            for one in found
        ]
