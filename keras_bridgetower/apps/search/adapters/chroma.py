"""An embedding function for Chroma, for texts and pictures mixed."""

import dataclasses

import numpy as np
from chromadb import EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from keras_bridgetower import BridgeTowerEmbedder


@register_embedding_function
@dataclasses.dataclass(eq=False)
class BridgeTowerChromaFunction(EmbeddingFunction):
    """Chroma's `EmbeddingFunction` of texts (`str`) and pictures (arrays).

    A collection saves its name and arguments: import this module before you
    open one. Needs `chromadb`.

    Args:
        preset: str, as for `BridgeTowerEmbedder.from_preset`.
        batch_size, sequence_length, long_texts: as for the same.

    Example:

    ```python
    function = BridgeTowerChromaFunction("bridgetower_large_itm_mlm_itc")
    photos = client.create_collection("photos", embedding_function=function)
    ```
    """

    preset: str
    batch_size: int = 32
    sequence_length: int | None = None
    long_texts: str = "refuse"

    def __post_init__(self):
        self.embedder = BridgeTowerEmbedder.from_preset(**self.get_config())

    def __call__(self, input):
        vectors = [None] * len(input)
        texts = [i for i, x in enumerate(input) if isinstance(x, str)]
        images = [i for i, x in enumerate(input) if not isinstance(x, str)]
        for places, embed in (
            (texts, self.embedder.embed_documents),
            (images, self.embedder.embed_images),
        ):
            found = embed([input[i] for i in places])
            for i, vector in zip(places, found, strict=True):
                vectors[i] = np.array(vector, "float32")
        return vectors

    @staticmethod
    def name():
        """Return the name that collections save, a str."""
        return "bridgetower"

    def default_space(self):
        """Return the default distance, a str."""
        return "cosine"

    @staticmethod
    def build_from_config(config):
        """Rebuild the function of a collection from its config."""
        return BridgeTowerChromaFunction(**config)

    def get_config(self):
        """Return the constructor arguments, a dict."""
        return dataclasses.asdict(self)
