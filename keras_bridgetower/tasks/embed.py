"""The part of a model that one kind of embedding (text, image, fused) runs."""

import keras

from keras_bridgetower.models.contrastive_features import contrastive_features


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
