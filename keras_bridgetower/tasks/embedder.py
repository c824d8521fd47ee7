"""Embeddings under the method names that vector stores call."""


class BridgeTowerEmbedder:
    """Embeddings as lists of numbers, by the names that stores call.

    It has the methods of LangChain's `Embeddings` without importing it; a
    store that asks for the class takes
    `class Embedder(BridgeTowerEmbedder, Embeddings): ...`.

    Args:
        task: a `BridgeTowerContrastive` with a preprocessor.
        batch_size: int, texts of a forward pass.

    Example:

    ```python
    contrastive = BridgeTowerContrastive(
        BridgeTowerBackbone.from_preset("bridgetower_tiny_easy_vqa"),
        BridgeTowerContrastivePreprocessor.from_preset(
            "bridgetower_tiny_easy_vqa"),
        projection_dim=64)
    embedder = BridgeTowerEmbedder(contrastive)
    len(embedder.embed_query("a red circle"))  # 64
    pictures = np.zeros((2, 64, 64, 3), "uint8")
    embedder.embed_image_text_pairs(["a dot", "a line"], list(pictures))
    ```
    """

    def __init__(self, task, batch_size=32):
        self.task = task
        self.batch_size = batch_size

    def embed_query(self, text):
        """list of float, of one text."""
        return self.embed_documents([text])[0]

    def embed_documents(self, texts):
        """list of lists of float, of several texts."""
        # Stores pass an empty list on, where a task refuses it.
        if not len(texts):
            return []
        found = self.task.embed(texts=list(texts), batch_size=self.batch_size)
        return found.tolist()

    def embed_image_text_pairs(self, texts, images, batch_size=2):
        """Embed pictures with a text each, such as its caption.

        Args:
            texts: list of str.
            images: list of as many pictures.
            batch_size: int, pairs of a forward pass.

        Returns:
            list of lists of float, one for each pair.
        """
        found = self.task.embed(list(images), list(texts), batch_size)
        return found.tolist()
