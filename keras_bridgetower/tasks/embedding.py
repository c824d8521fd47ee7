"""Embeddings of one kind: what is read for it, in batches of few shapes."""

import keras
import numpy as np

from keras_bridgetower.objectives import contrastive_features
from keras_bridgetower.preprocessing.image_converter import pictures_of


class Embedding(keras.Model):
    """One kind of embedding, without running what it does not read.

    Args:
        backbone: a `BridgeTowerBackbone`.
        head: `ContrastiveHead`.
        kind: `"text"`, `"image"` or `"fused"`.

    Call arguments:
        inputs: dict of the features that the kind reads.

    Returns:
        float32 tensor `(batch, projection_dim)`, rows of length 1.
    """

    def __init__(self, backbone, head, kind):
        super().__init__(name=f"{kind}_embedding", dtype=backbone.dtype_policy)
        self.backbone, self.head, self.kind = backbone, head, kind

    def call(self, inputs, training=None):
        features = contrastive_features(
            self.backbone.fusion,
            self.head.ways,
            **_READ[self.kind](self.backbone, inputs),
        )
        return self.head(features)[self.kind]


def text_states(backbone, features, **others):
    """States of the text tower, from a dict that holds its features.

    Args:
        backbone: a `BridgeTowerBackbone`.
        features: dict of features.
        **others: features that stand in for those of the dict.
    """
    features, tower = {**features, **others}, backbone.text_tower
    return tower({name: features[name] for name in tower.input})


_READ = {
    "text": lambda backbone, x: {"text": text_states(backbone, x)},
    "image": lambda backbone, x: {"image": backbone.image_tower(x["images"])},
    "fused": lambda backbone, x: backbone.fuse(x, outputs=("pooled",)),
}


class Texts:
    """Texts that a caller gave, as rows of features.

    Args:
        preprocessor: a `BridgeTowerContrastivePreprocessor`.
        texts: a string, or a list or array of strings.
    """

    name = "texts"

    def __init__(self, preprocessor, texts):
        features = preprocessor.text_features(texts)
        self.single = features["token_ids"].ndim == 1
        self._features = {
            name: np.atleast_2d(x) for name, x in features.items()
        }
        self.count = len(self._features["token_ids"])

    def rows(self, start, stop):
        """Features of some of them."""
        return {name: x[start:stop] for name, x in self._features.items()}


class Pictures:
    """Pictures that a caller gave, as rows of features, read when needed.

    Args:
        preprocessor: a `BridgeTowerContrastivePreprocessor`.
        images: one picture, or a list or array of pictures.
    """

    name = "images"

    def __init__(self, preprocessor, images):
        self._converter = preprocessor.image_converter
        self._images, self.single = pictures_of(images)
        self.count = len(self._images)

    def rows(self, start, stop):
        """Features of some of them."""
        return {"images": self._converter.block(self._images, start, stop)}


def check_same_number(sources):
    """Refuse sources that do not belong to each other, or are empty.

    Args:
        sources: list of `Texts` and `Pictures`.

    Raises:
        ValueError: not both single or both of the same number, or none.
    """
    for source in sources:
        if source.count == 0:
            raise ValueError(
                f"`{source.name}` must hold at least one. "
                f"Received: {source.name}=[]"
            )
    if len({(source.single, source.count) for source in sources}) > 1:
        shown = ", ".join(
            f"{s.name}: {'a single one' if s.single else s.count}"
            for s in sources
        )
        raise ValueError(
            "`images` and `texts` must be of the same number, both single or "
            "both in lists; repeat what belongs to several. "
            f"Received: {shown}"
        )


def in_batches(function, sources, batch_size):
    """Run a function over sources, in batches of few distinct sizes.

    The last batch is filled up to a power of two, so that whatever compiles
    `function` by shape does so a few times only.

    Args:
        function: callable, from a dict of features to an array
            `(rows, ...)`.
        sources: list of `Texts` and `Pictures` of the same count.
        batch_size: int, rows of a batch.

    Returns:
        Array `(count, ...)`.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}"
        )
    count, results = sources[0].count, []
    for start in range(0, count, batch_size):
        rows = min(batch_size, count - start)
        size = min(batch_size, 1 << (rows - 1).bit_length())
        features = {}
        for source in sources:
            features |= source.rows(start, start + rows)
        filled = {name: _filled(x, size) for name, x in features.items()}
        results.append(function(filled)[:rows])
    return np.concatenate(results)


def _filled(x, size):
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])
