"""Embeddings under the method names that vector stores call."""

from collections import abc

from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.images import decoded
from keras_bridgetower.tasks.contrastive import BridgeTowerContrastive


class BridgeTowerEmbedder:
    """Embeddings as lists of numbers, by the names that stores call.

    It has the methods of LangChain's `Embeddings` without importing it. For
    subclasses of LangChain's and other classes see
    `keras_bridgetower.apps.search.adapters`.

    Args:
        task: a `BridgeTowerContrastive` with a preprocessor.
        batch_size: int, texts or pictures of a forward pass.
        sequence_length: int, tokens of each text, such as 200; None for the
            task's own number. Tokens beyond those that the model was trained
            with are read, up to the positions of its text encoder.
        long_texts: what becomes of longer texts, as in
            `BridgeTowerContrastive.embed`; `"refuse"` by default.

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

    def __init__(
        self, task, batch_size=32, sequence_length=None, long_texts="refuse"
    ):
        self.task = task
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.long_texts = long_texts

    @classmethod
    def from_preset(
        cls,
        preset,
        batch_size=32,
        sequence_length=None,
        long_texts="refuse",
        **kwargs,
    ):
        """Create an embedder with the contrastive task of a preset.

        Args:
            preset: as `BridgeTowerContrastive.from_preset`.
            batch_size, sequence_length, long_texts: as the class.
            **kwargs: further arguments of
                `BridgeTowerContrastive.from_preset`.
        """
        task = BridgeTowerContrastive.from_preset(preset, **kwargs)
        return cls(task, batch_size, sequence_length, long_texts)

    def embed_query(self, text):
        """Embed one text as a list of float."""
        return self.embed_documents([text])[0]

    def embed_documents(self, texts):
        """Embed several texts as lists of float."""
        texts = _texts(texts)
        # Stores pass empty lists, which a task rejects.
        if not texts:
            return []
        return self._embed(texts=texts).tolist()

    def embed_images(self, images):
        """Embed pictures.

        Args:
            images: list of pictures: paths, bytes, base64, PIL images or
                arrays.

        Returns:
            list of lists of float, one for each picture.

        Raises:
            ValueError: a single picture, or one that cannot be read.
        """
        images = _pictures(images)
        if not images:
            return []
        return self._embed(images=images).tolist()

    def embed_image_text_pairs(self, texts, images, batch_size=2):
        """Embed pictures with a text each, such as its caption.

        Args:
            texts: list of str.
            images: list of as many pictures, as `embed_images` takes them.
            batch_size: int, pairs of a forward pass.

        Returns:
            list of lists of float, one for each pair.

        Raises:
            ValueError: no lists, lists of different lengths, a text or a
                picture that cannot be read, or a wrong `batch_size`.
        """
        texts, images = _texts(texts), _pictures(images)
        check_count("batch_size", batch_size)
        if not texts and not images:
            return []
        return self._embed(batch_size, texts=texts, images=images).tolist()

    def _embed(self, batch_size=None, **given):
        return self.task.embed(
            batch_size=self.batch_size if batch_size is None else batch_size,
            sequence_length=self.sequence_length,
            long_texts=self.long_texts,
            **given,
        )


def _texts(texts):
    return _listed("texts", texts, (1,), "use `embed_query` for one")


def _pictures(images):
    # An array holds whole pictures, or the names of some.
    put = "put a single one into a list"
    images = _listed("images", images, (1, 4), put)
    return [decoded(image, f"images[{i}]") for i, image in enumerate(images)]


def _listed(name, values, axes, fix):
    """Return a list, tuple or array as a list, or raise an error."""
    several = isinstance(values, abc.Sequence) and not isinstance(
        values, (str, bytes)
    )
    if not several and getattr(values, "ndim", None) not in axes:
        raise ValueError(
            f"`{name}` must be a list; {fix}. Received: {name}={values!r:.200}"
        )
    return list(values)
