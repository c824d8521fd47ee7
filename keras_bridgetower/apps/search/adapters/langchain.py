"""Embeddings for LangChain."""

from langchain_core.embeddings import Embeddings

from keras_bridgetower import BridgeTowerEmbedder


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
