"""Cross-modal layers: co-attention and merged attention.

A cross-modal step takes the tokens of both modalities and returns both.
`CROSS_ENCODERS` lists the steps that `cross_encoder` can choose.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models.attention import attention
from keras_bridgetower.models.attention import dense
from keras_bridgetower.models.attention import layer_norm


class PostNormLayer(keras.layers.Layer):
    """Abstract: attention branches, then a feed-forward network, post-norm.

    A subclass lists the names of its attention branches. Each one gets an
    attention layer of that name, and a layer norm named `<name>_norm`.

    Args:
        hidden_dim: int, width D.
        num_heads: int, attention heads.
        intermediate_dim: int, hidden width of the feed-forward network.
        dropout: float, on each residual branch.
        epsilon: float, epsilon of the layer norms.
        attention_dropout: float, on attention weights; None means `dropout`.
    """

    attention_branches = ()

    def __init__(
        self,
        hidden_dim,
        num_heads,
        intermediate_dim,
        dropout=0.1,
        epsilon=1e-5,
        attention_dropout=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dim, self.intermediate_dim = hidden_dim, intermediate_dim
        if attention_dropout is None:
            attention_dropout = dropout
        for branch in self.attention_branches:
            name = f"{self.name}_{branch}"
            layer = attention(
                self, hidden_dim, num_heads, attention_dropout, name
            )
            setattr(self, branch, layer)
        for branch in (*self.attention_branches, "feedforward"):
            name = f"{branch}_norm"
            setattr(self, name, layer_norm(self, epsilon, name))
        self.intermediate_dense = dense(
            self, intermediate_dim, "intermediate_dense", activation="gelu"
        )
        self.output_dense = dense(self, hidden_dim, "output_dense")
        self.residual_dropout = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="residual_dropout"
        )

    def build_branches(self, query_shape, *key_shapes):
        """Build all layers.

        Args:
            query_shape: tuple, `(batch, queries, D)`.
            *key_shapes: for each attention branch, the shape of the tokens
                that it attends to.
        """
        branches = zip(self.attention_branches, key_shapes, strict=True)
        for branch, keys in branches:
            getattr(self, branch).build(query_shape, keys)
            getattr(self, f"{branch}_norm").build(query_shape)
        self.intermediate_dense.build(query_shape)
        self.output_dense.build((*query_shape[:-1], self.intermediate_dim))
        self.feedforward_norm.build(query_shape)

    def attend(self, branch, x, keys, padding_mask, training):
        """Compute `LN(x + Attention(x, keys))` by the branch of this name."""
        if padding_mask is not None:
            # The same mask for every query.
            padding_mask = ops.expand_dims(padding_mask, 1)
        attended = getattr(self, branch)(
            x, keys, attention_mask=padding_mask, training=training
        )
        return self._add(branch, x, attended, training)

    def feed_forward(self, x, training):
        """Compute `LN(x + FFN(x))`."""
        hidden = self.output_dense(self.intermediate_dense(x))
        return self._add("feedforward", x, hidden, training)

    def _add(self, branch, x, change, training):
        dropped = self.residual_dropout(change, training=training)
        return getattr(self, f"{branch}_norm")(x + dropped)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class CrossModalLayer(PostNormLayer):
    """The co-attention layer of one modality, post-norm.

    `h = LN(q + SelfAttn(q, own)); h = LN(h + CrossAttn(h, other));
    out = LN(h + FFN(h))`.

    Args:
        hidden_dim: int, width D.
        num_heads: int, attention heads.
        intermediate_dim: int, hidden width of the feed-forward network.
        dropout: float, on each residual branch.
        epsilon: float, epsilon of the layer norms.
        attention_dropout: float, on attention weights; None means `dropout`.

    Call arguments:
        query: float tensor `(batch, queries, D)`: the tokens to compute,
            all tokens of `own` or its first ones.
        own: float tensor `(batch, tokens, D)`, tokens of this modality.
        other: float tensor `(batch, others, D)`, tokens of the other
            modality, as they enter the same layer.
        own_padding, other_padding: optional int tensors, 0 at padding.

    Returns:
        Float tensor `(batch, queries, D)`.

    Example:

    ```python
    layer = CrossModalLayer(16, num_heads=2, intermediate_dim=32)
    text, image = np.ones((1, 4, 16)), np.ones((1, 9, 16))
    layer(text, text, image).shape  # (1, 4, 16)
    ```

    Source: BridgeTower (AAAI 2023), cross-modal encoder, after METER.
    """

    attention_branches = ("self_attention", "cross_attention")

    def build(self, query_shape, own_shape, other_shape, **padding_shapes):
        self.build_branches(query_shape, own_shape, other_shape)

    def call(
        self,
        query,
        own,
        other,
        own_padding=None,
        other_padding=None,
        training=None,
    ):
        x = self.attend("self_attention", query, own, own_padding, training)
        x = self.attend("cross_attention", x, other, other_padding, training)
        return self.feed_forward(x, training)

    def compute_output_shape(self, query_shape, *other_shapes):
        return query_shape


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class CoAttention(keras.layers.Layer):
    """A cross-modal step: one `CrossModalLayer` per modality.

    Args:
        hidden_dim, num_heads, intermediate_dim, dropout, epsilon,
            attention_dropout: as `CrossModalLayer`.

    Call arguments:
        text_query, image_query: float tensors `(batch, queries, D)`, the
            tokens of each modality to compute, or None to skip a modality.
        text, image: float tensors `(batch, tokens, D)`, the inputs of both
            modalities after their bridges.
        padding_mask: optional int tensor `(batch, text tokens)`, 0 at padding.

    Returns:
        `(text, image)`, each with as many tokens as its query, or None.

    Example:

    ```python
    step = CoAttention(hidden_dim=16, num_heads=2, intermediate_dim=32)
    text, image = np.ones((1, 4, 16)), np.ones((1, 9, 16))
    text, image = step(text, image, text, image)
    ```
    """

    def __init__(self, name=None, dtype=None, **values):
        super().__init__(name=name, dtype=dtype)
        self.text_layer, self.image_layer = (
            CrossModalLayer(
                **values, dtype=self.dtype_policy, name=f"{self.name}_{side}"
            )
            for side in ("text", "image")
        )

    def build(self, text_shape, image_shape, **other_shapes):
        self.text_layer.build(text_shape, text_shape, image_shape)
        self.image_layer.build(image_shape, image_shape, text_shape)

    @property
    def image_only(self):
        """Layers that compute image tokens only."""
        return [self.image_layer]

    def call(
        self,
        text_query,
        image_query,
        text,
        image,
        padding_mask=None,
        training=None,
    ):
        if text_query is not None:
            text_query = self.text_layer(
                text_query, text, image, padding_mask, training=training
            )
        if image_query is not None:
            image_query = self.image_layer(
                image_query, image, text, None, padding_mask, training=training
            )
        return text_query, image_query

    def branches(self, captured, tokens, queries=None):
        """Arrange attention maps over the tokens of both modalities.

        Args:
            captured: dict from the name of an attention layer to its weights,
                as `capture_attention` returns it.
            tokens: `(T, P)`, the number of text and image tokens.
            queries: `(t, p)`, the number of text and image tokens that were
                computed, from the first. None means all.

        Returns:
            list of float arrays `(batch, heads, T + P, T + P)`, text first,
            one for each residual branch with attention: self-attention and
            cross-attention. Rows sum to 1; rows of tokens that were not
            computed are 0.
        """
        spans = {"text": slice(0, tokens[0]), "image": slice(tokens[0], None)}
        other = {"text": "image", "image": "text"}
        joined = {}
        for kind in ("self", "cross"):
            for side, rows in spans.items():
                name = f"{self.name}_{side}_{kind}_attention"
                if name not in captured:
                    continue
                columns = rows if kind == "self" else spans[other[side]]
                part = ops.convert_to_numpy(captured[name])
                if kind not in joined:
                    joined[kind] = _empty_map(part, tokens)
                rows = slice(rows.start, rows.start + part.shape[2])
                joined[kind][..., rows, columns] = part
        return list(joined.values())


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MergedAttention(PostNormLayer):
    """A cross-modal step: one transformer block over both modalities joined.

    `h = LN(q + SelfAttn(q, all)); out = LN(h + FFN(h))`, where `all` are the
    text tokens followed by the image tokens. Both modalities share the
    weights.

    Args:
        hidden_dim, num_heads, intermediate_dim, dropout, epsilon,
            attention_dropout: as `CrossModalLayer`.

    Call arguments:
        text_query, image_query, text, image, padding_mask: as `CoAttention`.

    Returns:
        `(text, image)`, each with as many tokens as its query, or None.

    Example:

    ```python
    step = MergedAttention(16, num_heads=2, intermediate_dim=32)
    text, image = np.ones((1, 4, 16)), np.ones((1, 9, 16))
    text, image = step(text, image, text, image)
    ```

    Source: METER (CVPR 2022), merged attention.
    """

    attention_branches = ("attention",)
    # No layer computes image tokens only.
    image_only = ()

    def build(self, text_shape, image_shape, **other_shapes):
        shape = (text_shape[0], None, self.hidden_dim)
        self.build_branches(shape, shape)

    def call(
        self,
        text_query,
        image_query,
        text,
        image,
        padding_mask=None,
        training=None,
    ):
        joined = ops.concatenate([text, image], axis=1)
        queries = [q for q in (text_query, image_query) if q is not None]
        query = ops.concatenate(queries, axis=1)
        mask = None
        if padding_mask is not None:
            padding_mask = ops.cast(padding_mask, "int32")
            mask = ops.concatenate(
                [padding_mask, ops.ones_like(image[..., 0], "int32")], axis=1
            )
        x = self.attend("attention", query, joined, mask, training)
        x = self.feed_forward(x, training)
        if text_query is None:
            return None, x
        if image_query is None:
            return x, None
        first = ops.shape(text_query)[1]
        return x[:, :first], x[:, first:]

    def compute_output_spec(self, text_query, image_query, *args, **kwargs):
        # Keras would trace `call` with inputs that are not cast.
        return tuple(
            x if x is None else keras.KerasTensor(x.shape, self.compute_dtype)
            for x in (text_query, image_query)
        )

    def branches(self, captured, tokens, queries=None):
        """Arrange the maps of the single branch, see `CoAttention.branches`."""
        part = ops.convert_to_numpy(captured[f"{self.name}_attention"])
        joined = _empty_map(part, tokens)
        text, image = queries or tokens
        joined[..., :text, :] = part[..., :text, :]
        joined[..., tokens[0] : tokens[0] + image, :] = part[..., text:, :]
        return [joined]


def _empty_map(part, tokens):
    """Return zeros `(batch, heads, T + P, T + P)` for the map `part`."""
    return np.zeros((*part.shape[:2], sum(tokens), sum(tokens)), "float32")


CROSS_ENCODERS = {
    "co_attention": CoAttention,
    "merged_attention": MergedAttention,
}
