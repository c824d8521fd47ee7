"""Embeddings and a reranker for LangChain."""

from typing import Any

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings

from keras_bridgetower import BridgeTowerEmbedder
from keras_bridgetower.apps.search.adapters import checked


class BridgeTowerEmbeddings(BridgeTowerEmbedder, Embeddings):
    """LangChain's `Embeddings` with a `BridgeTowerContrastive`.

    LangChain's async methods (`aembed_documents`, `aembed_query`) run the
    others in a thread. Needs `langchain-core`.

    Args:
        task, batch_size, sequence_length, long_texts: as in
            `BridgeTowerEmbedder`; or use `from_preset`.

    Example:

    ```python
    embeddings = BridgeTowerEmbeddings.from_preset(
        "bridgetower_large_itm_mlm_itc", sequence_length=200)
    store = InMemoryVectorStore(embeddings)
    ```
    """


class BridgeTowerCompressor(BaseDocumentCompressor):
    """LangChain's `BaseDocumentCompressor`: the pictures that fit a text best.

    Needs `langchain-core`.

    Args:
        reranker: a `BridgeTowerReranker`.
        top_n: int, how many documents are kept; None for all.
        image_key: str, where the metadata of a document hold its picture: a
            path, bytes or base64.

    Example:

    ```python
    compressor = BridgeTowerCompressor(
        reranker=BridgeTowerReranker.from_preset(
            "bridgetower_large_itm_mlm_itc"),
        top_n=3)
    compressor.compress_documents(store.similarity_search(query, 100), query)
    ```
    """

    reranker: Any
    top_n: int | None = None
    image_key: str = "image"

    def compress_documents(self, documents, query, callbacks=None):
        """Return copies of the best documents, best first.

        Args:
            documents: list of `Document`.
            query: str.
            callbacks: not used.

        Returns:
            list of `Document`, with `"relevance_score"` in their metadata.

        Raises:
            ValueError: a document without a picture, or with one that cannot
                be read.
        """
        key = self.image_key
        pictures = [document.metadata.get(key) for document in documents]
        checked(pictures, "documents", f"`metadata[{key!r}]`")
        kept = []
        for found in self.reranker.rank(query, pictures, self.top_n):
            document = documents[found["corpus_id"]]
            score = {"relevance_score": found["score"]}
            metadata = document.metadata | score
            kept.append(document.model_copy(update={"metadata": metadata}))
        return kept
