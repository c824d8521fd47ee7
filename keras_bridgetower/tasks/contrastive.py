"""Embeddings of texts, pictures and pairs in one space, for search."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.models.checks import check_positions
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import pack_embeddings
from keras_bridgetower.preprocessing.retrieval import (
    BridgeTowerContrastivePreprocessor,
)
from keras_bridgetower.preprocessing.texts import LongTexts
from keras_bridgetower.preprocessing.verb_inputs import Pictures
from keras_bridgetower.preprocessing.verb_inputs import Texts
from keras_bridgetower.preprocessing.verb_inputs import check_not_words
from keras_bridgetower.preprocessing.verb_inputs import check_order
from keras_bridgetower.preprocessing.verb_inputs import check_same_number
from keras_bridgetower.preprocessing.verb_inputs import one_or_all
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.inference import in_batches
from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.task import BridgeTowerTask
from keras_bridgetower.tasks.trainable import unread_of

# What is embedded, by what is given.
KIND_OF = {
    ("images",): "image",
    ("texts",): "text",
    ("images", "texts"): "fused",
}


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerContrastive(BridgeTowerTask):
    """Embeds texts, pictures, and pairs of both, in one space for search.

    Texts alone and pictures alone are read off the highest tapped states:
    those of the encoders' last blocks, as in the authors' code and in
    transformers, unless `taps` end below -1.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerContrastivePreprocessor`, or None.
        projection_dim: int, width of the space; 512 in transformers, 256 in
            the authors' models.
        ways: `"three_way"`: text, image and fused pairs, as transformers; or
            `"two_way"`: text and image, as the authors.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's.

    Returns:
        dict of `"text"`, `"image"` and, three-way, `"fused"`: float32
        `(batch, projection_dim)`, rows of length 1. In `fit` and `evaluate`
        `x` is a dict of `"images"` and `"text"`, and `y` image ids (see
        `BridgeTowerContrastivePreprocessor`), or left out: then each pair
        matches itself alone, among all of the global batch.

    Example:

    ```python
    contrastive = BridgeTowerContrastive(
        BridgeTowerBackbone.from_preset("bridgetower_tiny_easy_vqa"),
        BridgeTowerContrastivePreprocessor.from_preset(
            "bridgetower_tiny_easy_vqa"),
        projection_dim=64)
    texts = contrastive.embed(texts=["a red circle", "a blue triangle"])
    images = contrastive.embed(images=np.zeros((3, 64, 64, 3), "uint8"))
    (texts @ images.T).shape  # (2, 3): cosines
    ```

    Source: transformers' `BridgeTowerForContrastiveLearning`; two-way,
    BridgeTower's `compute_itc`.
    """

    preprocessor_cls = BridgeTowerContrastivePreprocessor
    task_name = "contrastive"
    verbs = (verbs.EMBED_IMAGES, verbs.EMBED_TEXTS)
    config_arguments = ("projection_dim", "ways")

    def __init__(
        self,
        backbone,
        preprocessor=None,
        projection_dim=512,
        ways="three_way",
        **kwargs,
    ):
        head = {"projection_dim": projection_dim, "ways": ways}
        self.projection_dim = projection_dim
        self.ways = ways
        super().__init__(backbone, preprocessor, {"itc": head}, **kwargs)

    def outputs_of(self, inputs):
        backbone = self.backbone
        text = text_states(backbone, inputs)
        image = backbone.image_tower(inputs["images"])
        pooled = None
        if "fused" in embedding_kinds(self.ways):
            pooled = backbone.fusion(
                text,
                image,
                padding_mask=inputs["padding_mask"],
                outputs=("pooled",),
            )["pooled"]
        return self.heads["itc"](
            contrastive_features(
                backbone.fusion, self.ways, text, image, pooled
            )
        )

    def label_words(self):
        return None

    def unread_layers(self):
        fused = "fused" in embedding_kinds(self.ways)
        return unread_of(self.backbone.fusion, ("pooled",) if fused else ())

    @classmethod
    def head_arguments(cls, heads):
        return dict(heads.get("itc", {}))

    def loss_inputs(self, y, y_pred):
        scale = self.heads["itc"].logit_scale
        return self._ids(y, y_pred), pack_embeddings(y_pred, scale)

    def metric_inputs(self, y, y_pred):
        return self._ids(y, y_pred), pack_embeddings(y_pred)

    def _ids(self, y, y_pred):
        """Return image ids, by default one for each row of the global batch."""
        if y is not None:
            return y
        count = ops.shape(y_pred["text"])[0]
        rows = ops.arange(count, dtype="int32")
        every, offset = backend_ops.all_gather(rows)
        if self.preprocessor is not None:
            self.preprocessor.warn_if_alone(every.shape[0])
        return rows + offset

    def default_loss(self):
        return ContrastiveLoss(self.ways)

    def default_metrics(self):
        return [ContrastiveAccuracy(self.ways)]

    def embed(
        self,
        images=None,
        texts=None,
        batch_size=32,
        sequence_length=None,
        long_texts="warn",
    ):
        """Embed texts, pictures, or pairs of both.

        Only what is read is run: no fusion where one of the two is given,
        and not the other tower.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`), or None.
            texts: one string or a list, or None. Where both are given, as
                many as pictures: each pair has one, fused, embedding.
            batch_size: int, rows of a forward pass.
            sequence_length: int, tokens of each text in place of the
                preprocessor's number, up to the text encoder's positions.
            long_texts: what becomes of longer texts: `"warn"` cuts their
                end and says so (without `sequence_length` the first time
                alone), `"cut_end"` and `"cut_start"` cut them there,
                `"refuse"` raises an error.

        Returns:
            float32 array `(count, projection_dim)`, rows of length 1; for a
            single input `(projection_dim,)`.

        Raises:
            ValueError: nothing given, pairs for a two-way head, unequal
                counts, unreadable pictures, empty texts, texts that are too
                long, more tokens than positions.

        Example:

        ```python
        contrastive.embed(images=["a.png", "b.png"])   # (2, 512)
        contrastive.embed(texts="a red circle")        # (512,)
        contrastive.embed("a.png", "a red circle")     # (512,), of both
        ```
        """
        given = {"images": images, "texts": texts}
        kind = self._kind(
            tuple(name for name, x in given.items() if x is not None)
        )
        preprocessor = self.needed_preprocessor()
        sources = []
        if texts is None:
            check_not_words(images)
        else:
            check_order(images, texts, "texts")
        if images is not None:
            sources.append(Pictures(preprocessor, images))
        if texts is not None:
            encode = self._encode(preprocessor, sequence_length, long_texts)
            sources.append(Texts(preprocessor, texts, encode=encode))
        check_same_number(sources)
        forward = self.inference.cached(kind, lambda: self._embedding(kind))
        with self.inference.reading("embed"):
            self.new_heads.check("embed", self.answering_heads)
            found = joined(
                in_batches(forward, sources, batch_size, self.buckets)
            )
        return one_or_all(found, sources)

    def _encode(self, preprocessor, sequence_length, long_texts):
        """Return the function that encodes texts, or None for the default."""
        tokenizer = preprocessor.tokenizer
        if sequence_length is None and long_texts == "warn":
            return None
        length = sequence_length
        if length is None:
            length = tokenizer.sequence_length
        limits = LongTexts(length, long_texts)
        check_positions(self.backbone.text_encoder, length)
        return lambda texts: limits.encode(tokenizer, texts)

    def _kind(self, given):
        if given not in KIND_OF:
            raise ValueError(
                "`images` or `texts` must be given, or both. "
                "Received: images=None, texts=None"
            )
        kind = KIND_OF[given]
        if kind not in embedding_kinds(self.ways):
            raise ValueError(
                "`images` and `texts` together have no embedding here: the "
                "two-way head knows either alone. Embed them one by one, or "
                "train a task with ways='three_way'. "
                f"Received: ways={self.ways!r}"
            )
        return kind

    def _embedding(self, kind):
        model = Embedding(self.backbone, self.heads["itc"], kind)
        return self.inference.forward("embed", model)


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
    """Compute the states of the text tower from a dict of features.

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
