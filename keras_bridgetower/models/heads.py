"""Heads: layers that turn the backbone's outputs into logits or embeddings."""

import math

import keras
from keras import ops

from keras_bridgetower import checks
from keras_bridgetower.backend.layer_records import check_not_quantized
from keras_bridgetower.models.attention import dense
from keras_bridgetower.models.attention import layer_norm

# log(1 / 0.07), the initial value in CLIP, BridgeTower and transformers.
LOGIT_SCALE = math.log(1 / 0.07)
LOGIT_SCALE_LIMITS = (math.log(2), math.log(1000))
# The same as a factor, about that of CLIP's vectors once they are trained.
SCALE = 30.0
# Outputs of the fusion that are its last input: states of words and patches.
WORD_STATES = ("words", "patches")
KINDS = ("text", "image", "fused")
# The pairs of kinds that a contrastive head learns to match.
WAYS = {
    "three_way": (("text", "image"), ("text", "fused"), ("image", "fused")),
    "two_way": (("text", "image"), ("image", "text")),
}


def embedding_kinds(ways):
    """Return the kinds that a contrastive head of `ways` embeds, in order."""
    return [k for k in KINDS if any(k in pair for pair in WAYS[ways])]


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ClassifierHead(keras.layers.Layer):
    """Linear, LayerNorm, GELU, Linear: the head of VQA, entailment, NLVR2.

    Args:
        num_classes: int, number of logits.
        hidden_dim: int, width of the hidden layer.
        dropout: float, dropout of the input.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: float tensor `(batch, width)`, the pooled representation.

    Returns:
        float32 tensor `(batch, num_classes)`: logits, with any dtype policy.

    Example:

    ```python
    head = ClassifierHead(num_classes=13, hidden_dim=64)
    head(np.ones((2, 32))).shape  # (2, 13)
    ```

    Source: BridgeTower's `vqa_classifier`, `snli_classifier` and
    `nlvr2_classifier`.
    """

    def __init__(self, num_classes, hidden_dim, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        checks.check_share("dropout", dropout)
        self.hidden_dim = hidden_dim
        self.input_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="input_dropout"
        )
        self.hidden_dense = dense(self, hidden_dim, "hidden_dense")
        self.layer_norm = layer_norm(self, 1e-5)
        self.output_dense = dense(self, num_classes, "output_dense")

    def build(self, x_shape):
        self.hidden_dense.build(x_shape)
        hidden_shape = (*x_shape[:-1], self.hidden_dim)
        self.layer_norm.build(hidden_shape)
        self.output_dense.build(hidden_shape)

    def call(self, x, training=None):
        x = self.hidden_dense(self.input_dropout(x, training=training))
        x = ops.gelu(self.layer_norm(x), approximate=False)
        return ops.cast(self.output_dense(x), "float32")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class LinearHead(keras.layers.Layer):
    """One Linear: the head of image-text matching and of ranking.

    Args:
        num_classes: int, number of logits: 2 for matching, where the second
            one means "match", and 1 for ranking.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: float tensor `(batch, width)`, the pooled representation.

    Returns:
        float32 tensor `(batch, num_classes)`: logits.

    Example:

    ```python
    LinearHead(num_classes=2)(np.ones((3, 32))).shape  # (3, 2)
    ```

    Source: BridgeTower's `itm_score` and `rank_output`.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.output_dense = dense(self, num_classes, "output_dense")

    def build(self, x_shape):
        self.output_dense.build(x_shape)

    def call(self, x):
        return ops.cast(self.output_dense(x), "float32")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class SimilarityHead(keras.layers.Layer):
    """A matching head that starts from the vectors and learns a correction.

    The log-odds of a match are the product of both vectors of the contrastive
    head times a learned scale, and a Linear of the pooled representation that
    starts at 0. So an untrained head sorts pictures as their vectors do, and
    what it learns beyond that is a gain of the fusion.

    With `words`, the similarity of words and patches counts as well: the mean
    over words of the largest product with a patch, of two Linears of the last
    states that enter the fusion. A word counts as much as its vector is long.
    Its scale starts at 0. The first tokens, which stand for the whole text and
    picture, are left out.

    Args:
        scale: float, initial factor of the product.
        words: bool, whether words and patches are read.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: dict of `"pooled"`, float tensor `(batch, 2D)`, and `"similarity"`,
            float32 tensor `(batch,)`, the product of the vectors. With `words`
            also `"words"` `(batch, tokens, D)`, `"patches"`
            `(batch, tokens, D)`, and `"padding_mask"` int32 `(batch, tokens)`,
            1 for tokens.

    Returns:
        float32 tensor `(batch, 2)`: logits of no match and match.

    Example:

    ```python
    head = SimilarityHead(scale=10.0)
    head({"pooled": np.array([[0.3, 0.1]], "float32"),
          "similarity": np.array([0.5], "float32")})  # [[-2.5, 2.5]]
    ```

    Source: the similarity of words is the token-wise one of FILIP (Yao et al.,
    2021), there with words of equal weight.
    """

    def __init__(self, scale=SCALE, words=False, **kwargs):
        # A similarity in half precision would have ties.
        super().__init__(autocast=False, **kwargs)
        self.scale, self.words = scale, words
        self.output_dense = dense(
            self, 2, "output_dense", kernel_initializer="zeros"
        )
        # Outputs of the fusion that are read.
        self.reads = ("pooled", *(WORD_STATES if words else ()))

    def build(self, x_shape):
        width = x_shape["pooled"][-1] // 2
        self.output_dense.build(x_shape["pooled"])
        self.similarity_scale = self._add_scale("similarity", self.scale)
        if self.words:
            self.word_scale = self._add_scale("word", 0.0)
            for name in ("word_dense", "patch_dense"):
                setattr(self, name, dense(self, width, name, use_bias=False))
                getattr(self, name).build((None, None, width))

    def _add_scale(self, name, value):
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            name=f"{name}_scale",
        )

    def call(self, x):
        pooled = ops.cast(x["pooled"], self.compute_dtype)
        logits = ops.cast(self.output_dense(pooled), "float32")
        near = self.similarity_scale * ops.cast(x["similarity"], "float32")
        if self.words:
            near = near + self.word_scale * self.word_similarity(x)
        near = near[:, None] / 2
        return logits + ops.concatenate([-near, near], axis=-1)

    def word_similarity(self, x):
        """Compute the similarity of words and patches, `(batch,)`."""
        words, patches = (
            ops.cast(layer(x[name][:, 1:]), "float32")
            for layer, name in (
                (self.word_dense, "words"),
                (self.patch_dense, "patches"),
            )
        )
        mask = ops.cast(x["padding_mask"][:, 1:], "float32")
        patches = ops.transpose(_unit(patches), (0, 2, 1))
        near = ops.max(ops.matmul(words, patches), axis=-1)
        lengths = ops.sqrt(ops.sum(ops.square(words), axis=-1) + 1e-12)
        total = ops.sum(lengths * mask, axis=-1)
        return ops.sum(near * mask, axis=-1) / (total + 1e-6)


def head_input(head, outputs, similarity, padding_mask):
    """Return the input of a head that scores pairs.

    Args:
        head: a head of the pooled representation.
        outputs: dict of the outputs of the fusion that the head reads.
        similarity: callable that returns float32 `(batch,)`, the products of
            the vectors of each pair. It is called for a `SimilarityHead`.
        padding_mask: int tensor `(batch, tokens)`, of the texts.
    """
    if not isinstance(head, SimilarityHead):
        return outputs["pooled"]
    read = {name: outputs[name] for name in head.reads}
    read["similarity"] = similarity()
    return read | ({"padding_mask": padding_mask} if head.words else {})


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class TextHead(keras.layers.Layer):
    """Linear, tanh, Linear over the first token: the head of the text tower.

    Args:
        num_classes: int, number of outputs.
        dropout: float, dropout before each Linear.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: float tensor `(batch, tokens, width)`, a state of the text tower.

    Returns:
        float32 tensor `(batch, num_classes)`.

    Example:

    ```python
    TextHead(num_classes=2)(np.ones((3, 5, 16))).shape  # (3, 2)
    ```

    Source: the classification head of RoBERTa.
    """

    def __init__(self, num_classes, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        checks.check_share("dropout", dropout)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.output_dense = dense(self, num_classes, "output_dense")

    def build(self, x_shape):
        self.hidden_dense = dense(self, x_shape[-1], "hidden_dense")
        self.hidden_dense.build((x_shape[0], x_shape[-1]))
        self.output_dense.build((x_shape[0], x_shape[-1]))

    def call(self, x, training=None):
        x = self.dropout(x[:, 0], training=training)
        x = self.dropout(ops.tanh(self.hidden_dense(x)), training=training)
        return ops.cast(self.output_dense(x), "float32")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MaskedLMHead(keras.layers.Layer):
    """Linear, GELU, LayerNorm, Linear: the head of masked language modeling.

    The last Linear does not share its weights with the token embedding.

    Args:
        vocabulary_size: int, number of logits.
        epsilon: float, epsilon of the layer norm.
        **kwargs: `name`, `dtype`.

    Call arguments:
        x: float tensor `(batch, tokens, width)`, text outputs of the fusion.

    Returns:
        float32 tensor `(batch, tokens, vocabulary_size)`: logits.

    Example:

    ```python
    MaskedLMHead(vocabulary_size=50)(np.ones((1, 4, 16))).shape  # (1, 4, 50)
    ```

    Source: BridgeTower's `mlm_score`, after BERT.
    """

    def __init__(self, vocabulary_size, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.layer_norm = layer_norm(self, epsilon)
        self.decoder = dense(self, vocabulary_size, "decoder")

    def build(self, x_shape):
        self.transform = dense(self, x_shape[-1], "transform")
        self.transform.build(x_shape)
        self.layer_norm.build(x_shape)
        self.decoder.build(x_shape)

    def call(self, x):
        x = ops.gelu(self.transform(x), approximate=False)
        return ops.cast(self.decoder(self.layer_norm(x)), "float32")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ContrastiveHead(keras.layers.Layer):
    """One Linear for each kind of embedding, and a learned scale.

    Args:
        projection_dim: int, width of the shared space.
        ways: `"three_way"`: text, image and fused pairs, as in transformers;
            `"two_way"`: text and image, as in the authors' code.
        **kwargs: `name`, `dtype`.

    Call arguments:
        features: dict of some of `"text"` `(batch, ..., width)`, `"image"`
            `(batch, ..., width)` and `"fused"` `(batch, 2D)`.

    Returns:
        dict with the same keys: float32 unit vectors
        `(batch, ..., projection_dim)`. The weight `logit_scale` is the
        logarithm of the factor by which their products are multiplied.

    Example:

    ```python
    head = ContrastiveHead(projection_dim=8)
    features = {"text": np.ones((2, 16)), "image": np.ones((2, 16)),
                "fused": np.ones((2, 32))}
    head(features)["fused"].shape  # (2, 8)
    ```

    Source: BridgeTower's `itc_text_head` and `itc_image_head`; transformers'
    `BridgeTowerForContrastiveLearning` for the third.
    """

    def __init__(self, projection_dim=512, ways="three_way", **kwargs):
        super().__init__(**kwargs)
        checks.check_choice("ways", ways, tuple(WAYS))
        self.projection_dim = projection_dim
        self.ways = ways
        for kind in embedding_kinds(ways):
            layer = dense(self, projection_dim, f"{kind}_dense")
            setattr(self, f"{kind}_dense", layer)

    def build(self, features_shape):
        for kind in embedding_kinds(self.ways):
            getattr(self, f"{kind}_dense").build(features_shape[kind])
        self.logit_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(LOGIT_SCALE),
            # The authors clamp their temperature before every step.
            constraint=lambda value: ops.clip(value, *LOGIT_SCALE_LIMITS),
            dtype="float32",
            name="logit_scale",
        )

    def call(self, features):
        return {
            name: _unit(getattr(self, f"{name}_dense")(x))
            for name, x in features.items()
        }

    def compute_output_spec(self, features):
        # Keras would trace `call` otherwise, and a graph of a task would keep
        # the weights of that moment.
        return {
            name: keras.KerasTensor((*x.shape[:-1], self.projection_dim))
            for name, x in features.items()
        }


def _unit(x):
    """Scale vectors to length 1."""
    x = ops.cast(x, "float32")
    # The same lower bound as in torch's `normalize`.
    norm = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    return x / ops.maximum(norm, 1e-12)


def divide_logits(head, temperature):
    """Divide the logits of a head by a number, in its last layer.

    Args:
        head: one of the heads with logits, not quantized.
        temperature: number above 0.

    Raises:
        ValueError: a head without logits, a quantized one, or another number.
    """
    checks.check_above_zero("temperature", temperature)
    checks.check_finite("temperature", temperature)
    check_not_quantized(head, "`divide_logits`")
    last = getattr(head, "output_dense", None) or getattr(head, "decoder", None)
    if last is None:
        raise ValueError(
            "`head` must have logits, from a layer `output_dense`. "
            f"Received: {type(head).__name__}"
        )
    scale = getattr(head, "similarity_scale", None)
    for weight in last.weights + ([] if scale is None else [scale]):
        # An adapter is the product of two factors.
        if weight.name != "lora_kernel_a":
            weight.assign(weight / temperature)


def tower_outputs(fusion, heads, kind, states):
    """Return the outputs of a tower alone, for the fusion and a search.

    Args:
        fusion: `CrossModalEncoder`.
        heads: mapping from name to head.
        kind: `"text"` or `"image"`.
        states: list of float tensors, the states of the tower.

    Returns:
        dict of `"states"` float32 `(batch, taps, tokens, D)`, projected, and
        with contrastive heads `"embedding"` `(batch, projection_dim)`.
    """
    projected = getattr(fusion, f"project_{kind}")(states)
    made = {"states": ops.cast(ops.stack(projected, axis=1), "float32")}
    if "itc" in heads:
        head = heads["itc"]
        vectors = contrastive_features(fusion, head.ways, **{kind: states})
        made["embedding"] = head(vectors)[kind]
    return made


def fuse_pairs(fusion, heads, head, text, image, padding_mask):
    """Run the fusion on pairs of a text and a picture, for a head.

    Args:
        fusion: `CrossModalEncoder`.
        heads: mapping from name to head.
        head: the one that reads the pairs, or None for the pooled
            representation alone.
        text, image: lists of float tensors `(pairs, tokens, width)`, states of
            the towers.
        padding_mask: int tensor `(pairs, tokens)`.

    Returns:
        The input of the head, and the pooled representation `(pairs, 2D)`.
    """

    def near():
        itc = heads["itc"]
        vectors = itc(contrastive_features(fusion, itc.ways, text, image))
        return ops.sum(vectors["text"] * vectors["image"], axis=-1)

    wanted = head.reads if isinstance(head, SimilarityHead) else ("pooled",)
    found = fusion(text, image, padding_mask, outputs=wanted)
    return head_input(head, found, near, padding_mask), found["pooled"]


def contrastive_features(fusion, ways, text=None, image=None, pooled=None):
    """Return the inputs of a contrastive head.

    The image vector is the first token of the tower. For `"three_way"` the
    fusion projects it, as in transformers.

    Args:
        fusion: `CrossModalEncoder`.
        ways: `"three_way"` or `"two_way"`.
        text: list of text states, or None.
        image: list of image states, or None.
        pooled: float tensor `(batch, 2D)`, or None.

    Returns:
        dict of float tensors `(batch, width)`: `"text"`, `"image"` and
        `"fused"`, without those whose states are None.
    """
    vectors = {}
    if text is not None:
        vectors["text"] = text[-1][:, 0]
    if image is not None:
        first = [x[:, :1] for x in image]
        if ways == "three_way":
            first = fusion.project_image(first)
        vectors["image"] = first[-1][:, 0]
    if pooled is not None:
        vectors["fused"] = pooled
    return vectors
