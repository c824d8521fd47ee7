"""Base class of the cross-modal layers: attention, feed-forward, post-norm."""

import keras

from keras_bridgetower.models.attention import attention
from keras_bridgetower.models.attention import initializer


class PostNormLayer(keras.layers.Layer):
    """Abstract: attention branches, then a feed-forward network, post-norm.

    A subclass lists the names of its attention branches. For each one there
    is an attention layer of that name, and a layer norm named `<name>_norm`.

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
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        if attention_dropout is None:
            attention_dropout = dropout
        self.attention_dropout = attention_dropout
        self.epsilon = epsilon
        dtype = self.dtype_policy
        for branch in self.attention_branches:
            name = f"{self.name}_{branch}"
            layer = attention(
                hidden_dim, num_heads, attention_dropout, dtype, name
            )
            setattr(self, branch, layer)
        for branch in (*self.attention_branches, "feedforward"):
            norm = keras.layers.LayerNormalization(
                epsilon=epsilon, dtype=dtype, name=f"{branch}_norm"
            )
            setattr(self, f"{branch}_norm", norm)
        self.intermediate_dense = keras.layers.Dense(
            intermediate_dim,
            activation="gelu",
            kernel_initializer=initializer(),
            dtype=dtype,
            name="intermediate_dense",
        )
        self.output_dense = keras.layers.Dense(
            hidden_dim,
            kernel_initializer=initializer(),
            dtype=dtype,
            name="output_dense",
        )
        self.residual_dropout = keras.layers.Dropout(
            dropout, dtype=dtype, name="residual_dropout"
        )

    def build_branches(self, query_shape, *key_shapes):
        """Build all layers.

        Args:
            query_shape: tuple, `(batch, queries, D)`.
            *key_shapes: for each attention branch, the shape of the tokens
                that it attends to.
        """
        for branch, keys in zip(
            self.attention_branches, key_shapes, strict=True
        ):
            getattr(self, branch).build(query_shape, keys)
            getattr(self, f"{branch}_norm").build(query_shape)
        self.intermediate_dense.build(query_shape)
        self.output_dense.build((*query_shape[:-1], self.intermediate_dim))
        self.feedforward_norm.build(query_shape)

    def attend(self, branch, x, keys, attention_mask, training):
        """`LN(x + Attention(x, keys))`, by the branch of this name."""
        attended = getattr(self, branch)(
            x, keys, attention_mask=attention_mask, training=training
        )
        return self._add(branch, x, attended, training)

    def feed_forward(self, x, training):
        """`LN(x + FFN(x))`."""
        hidden = self.output_dense(self.intermediate_dense(x))
        return self._add("feedforward", x, hidden, training)

    def _add(self, branch, x, change, training):
        dropped = self.residual_dropout(change, training=training)
        return getattr(self, f"{branch}_norm")(x + dropped)
