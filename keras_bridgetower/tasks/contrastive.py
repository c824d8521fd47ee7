"""Embeddings of texts, pictures and pairs in one space, for search."""

import dataclasses
import functools

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.objectives import losses
from keras_bridgetower.preprocessing import retrieval as preprocessing
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.images import decoded
from keras_bridgetower.preprocessing.texts import encode_long
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.task import BridgeTowerTask


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerContrastive(BridgeTowerTask):
    """Embeds texts, pictures, and pairs of both, in one space for search.

    Text-only and image-only embeddings come from the highest tapped states:
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
        `BridgeTowerContrastivePreprocessor`), or omitted; each pair then
        matches only itself within the global batch.

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

    preprocessor_cls = preprocessing.BridgeTowerContrastivePreprocessor
    task_name = "contrastive"
    head_name = "itc"
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
        super().__init__(backbone, preprocessor, {"itc": head}, **kwargs)

    def outputs_of(self, inputs):
        backbone = self.backbone
        text = backbone.text_tower(inputs)
        image = backbone.image_tower(inputs["images"])
        states = [text, image]
        if "fused" in embedding_kinds(self.ways):
            states.append(pooled(backbone, *states, inputs))
        return self.heads["itc"](
            contrastive_features(backbone.fusion, self.ways, *states)
        )

    def label_words(self):
        return None

    def unread_layers(self):
        fused = ("pooled",) if "fused" in embedding_kinds(self.ways) else ()
        return self.backbone.fusion.unread_layers(fused)

    def loss_inputs(self, y, y_pred):
        scale = self.heads["itc"].logit_scale
        return self._ids(y, y_pred), losses.pack_embeddings(y_pred, scale)

    def metric_inputs(self, y, y_pred):
        return self._ids(y, y_pred), losses.pack_embeddings(y_pred)

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
        return losses.ContrastiveLoss(self.ways)

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

        Runs only the parts it needs: for texts or pictures alone, neither the
        fusion nor the other tower.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`), or None.
            texts: one string or a list, or None. If both are given, their
                counts must match; each pair gets one, fused, embedding.
            batch_size: int, rows of a forward pass.
            sequence_length: int, tokens of each text in place of the
                preprocessor's number, up to the text encoder's positions.
            long_texts: how to handle texts that are too long: `"warn"`
                truncates the end and warns (only once if `sequence_length`
                is not given), `"cut_end"` and `"cut_start"` truncate
                silently, `"refuse"` raises an error.

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
        if images is None and texts is None:
            raise ValueError(
                "`images` or `texts` must be given, or both. "
                "Received: images=None, texts=None"
            )
        preprocessor = self.needed_preprocessor()
        kind, sources = "fused", []
        if texts is None:
            kind = "image"
            verb_inputs.check_not_words(images)
        else:
            verb_inputs.check_order(images, texts, "texts")
        if images is None:
            kind = "text"
        else:
            sources.append(verb_inputs.Pictures(preprocessor, images))
        if kind not in embedding_kinds(self.ways):
            raise ValueError(
                "`images` and `texts` can be embedded together only with "
                "ways='three_way'; otherwise call `embed` for each of them. "
                f"Received: ways={self.ways!r}"
            )
        if texts is not None:
            encode = self._encode(preprocessor, sequence_length, long_texts)
            sources.append(
                verb_inputs.Texts(preprocessor, texts, encode=encode)
            )
        embedded = functools.partial(self._embedded, kind)
        forward = self.inference.cached(
            kind, lambda: self.inference.forward(embedded)
        )
        found = self._run(
            "embed", sources, batch_size, repeat=False, forward=forward
        )
        return verb_inputs.one_or_all(found, sources)

    def _encode(self, preprocessor, sequence_length, long_texts):
        """Return the function that encodes texts, or None for the default."""
        tokenizer, length = preprocessor.tokenizer, sequence_length
        if length is None:
            if long_texts == "warn":
                return None
            length = tokenizer.sequence_length
        return lambda texts: encode_long(tokenizer, texts, length, long_texts)

    def _embedded(self, kind, inputs):
        """Compute one kind of embedding only."""
        states = _READ[kind](self.backbone, inputs)
        fusion, head = self.backbone.fusion, self.heads["itc"]
        return head(contrastive_features(fusion, self.ways, **states))[kind]


def pooled(backbone, text, image, features, **kwargs):
    """Compute the pooled representation of states of both towers."""
    mask = features["padding_mask"]
    return backbone.fusion(text, image, mask, outputs=("pooled",), **kwargs)[
        "pooled"
    ]


_READ = {
    "text": lambda backbone, x: {"text": backbone.text_tower(x)},
    "image": lambda backbone, x: {"image": backbone.image_tower(x["images"])},
    "fused": lambda backbone, x: backbone.fuse(x, outputs=("pooled",)),
}


@dataclasses.dataclass(eq=False)
class BridgeTowerEmbedder:
    """Returns lists of floats, by the methods that vector stores call.

    It has the methods of LangChain's `Embeddings` without importing it. For
    subclasses of LangChain's and other classes see
    `keras_bridgetower.apps.search.adapters`.

    Args:
        task: a `BridgeTowerContrastive` with a preprocessor.
        batch_size: int, texts or pictures of a forward pass.
        sequence_length: int, tokens of each text, such as 200; None for the
            task's own number. Tokens beyond those that the model was trained
            with are read, up to the positions of its text encoder.
        long_texts: how to handle longer texts, as in
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

    task: BridgeTowerContrastive
    batch_size: int = 32
    sequence_length: int | None = None
    long_texts: str = "refuse"

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
        return self._embed(texts=_listed("texts", texts, 1))

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
        return self._embed(images=_pictures(images))

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
        texts, images = _listed("texts", texts, 1), _pictures(images)
        return self._embed(texts=texts, images=images, batch_size=batch_size)

    def _embed(self, texts=None, images=None, batch_size=None):
        # Stores pass empty lists, which a task rejects.
        if not texts and not images:
            return []
        size = self.batch_size if batch_size is None else batch_size
        chosen = size, self.sequence_length, self.long_texts
        return self.task.embed(images, texts, *chosen).tolist()


def _pictures(images):
    # An array holds whole pictures, or the names of some.
    images = _listed("images", images, 1, 4)
    return [decoded(image, f"images[{i}]") for i, image in enumerate(images)]


def _listed(name, values, *axes):
    """Return a list, tuple or array as a list, or raise an error."""
    listed = isinstance(values, (list, tuple))
    if not listed and getattr(values, "ndim", None) not in axes:
        raise ValueError(
            f"`{name}` must be a list. Received: {name}={values!r:.200}"
        )
    return list(values)
