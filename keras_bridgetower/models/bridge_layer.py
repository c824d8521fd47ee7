"""The base class of bridges: a merge of two inputs, then a layer norm."""

import keras

from keras_bridgetower.models.attention import initializer


class BridgeLayer(keras.layers.Layer):
    """Abstract: `LayerNorm(merge(x, y))`.

    A subclass defines `merge(x, y, mask=None)` and creates the weights for it
    in `build_merge`. To use a bridge of your own, register the subclass with
    Keras and pass the class as `bridge`.

    Args:
        hidden_dim: int, width D of both inputs.
        num_heads: int, attention heads; used by attention bridges only.
        dropout: float, dropout inside the bridge; used by attention bridges
            only.
        epsilon: float, epsilon of the layer norm.

    Call arguments:
        x: float tensor `(batch, tokens, D)`, the previous cross-modal output.
        y: float tensor `(batch, tokens, D)`, the projected uni-modal state.
        mask: optional int tensor `(batch, tokens)`, 0 at the padding of `y`.

    Returns:
        Float tensor `(batch, tokens, D)`.

    Example:

    ```python
    bridge = bridges.get("add", hidden_dim=16)
    bridge(np.ones((2, 5, 16)), np.zeros((2, 5, 16))).shape  # (2, 5, 16)
    ```

    Source: BridgeTower (AAAI 2023), section on bridge layers, table 1.
    """

    def __init__(
        self, hidden_dim, num_heads=1, dropout=0.0, epsilon=1e-5, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.epsilon = epsilon
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="layer_norm"
        )

    def build(self, x_shape, y_shape=None, mask_shape=None):
        self.build_merge(x_shape)
        self.layer_norm.build(x_shape)

    def call(self, x, y, mask=None):
        return self.layer_norm(self.merge(x, y, mask))

    def compute_output_shape(self, x_shape, y_shape=None, mask_shape=None):
        return x_shape

    def build_merge(self, shape):
        """Create the weights of `merge`; `shape` is the shape of one input."""

    def merge(self, x, y, mask=None):
        """Combine the two inputs, before the layer norm."""
        raise TypeError(
            "`BridgeLayer` is abstract. Define `merge(x, y, mask=None)` in a "
            f"subclass. Received: bridge={type(self).__name__}"
        )

    def _dense(self, shape, units, name, activation=None, kernel=None):
        """A built dense layer with the authors' initializer by default."""
        layer = keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=kernel or initializer(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer
