"""Bridges: layers that merge a tower's state into a cross-modal layer.

The paper's design I compares the definitions (a) to (i); each is one class.
"""

import keras
from keras import ops

from keras_bridgetower.models.attention import attention
from keras_bridgetower.models.attention import dense
from keras_bridgetower.models.attention import layer_norm
from keras_bridgetower.models.managers import MANAGERS
from keras_bridgetower.models.managers import ManagerLayer


class BridgeLayer(keras.layers.Layer):
    """Abstract: `LayerNorm(merge(x, y))`.

    A subclass defines `merge(x, y, mask=None)` and creates its weights in
    `build_merge`. To use your own bridge, register the subclass with Keras
    and pass the class as `bridge`.

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
        self.layer_norm = layer_norm(self, epsilon)

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
        raise NotImplementedError

    def _dense(self, shape, units, name, **kwargs):
        """Return a built dense layer."""
        layer = dense(self, units, name, **kwargs)
        layer.build(shape)
        return layer


_register = keras.saving.register_keras_serializable("keras_bridgetower")


def _joined_shape(shape):
    """Return the shape of x and y concatenated along their width."""
    return (*shape[:-1], 2 * shape[-1])


@_register
class AddBridge(BridgeLayer):
    """(a) x + y: the paper's choice."""

    def merge(self, x, y, mask=None):
        return x + y


@_register
class MultiplyBridge(BridgeLayer):
    """(b) x * y, element by element."""

    def merge(self, x, y, mask=None):
        return x * y


@_register
class InterpolateBridge(BridgeLayer):
    """(c) a * x + (1 - a) * y with a learned vector a, initially 0.5."""

    def build_merge(self, shape):
        self.alpha = self.add_weight(
            shape=(shape[-1],),
            initializer=keras.initializers.Constant(0.5),
            name="alpha",
        )

    def merge(self, x, y, mask=None):
        return self.alpha * x + (1 - self.alpha) * y


@_register
class GateBridge(BridgeLayer):
    """(d) a * x + (1 - a) * y with a = sigmoid(W [x; y])."""

    def build_merge(self, shape):
        both = _joined_shape(shape)
        self.gate = self._dense(both, shape[-1], "gate", activation="sigmoid")

    def merge(self, x, y, mask=None):
        alpha = self.gate(ops.concatenate([x, y], axis=-1))
        return alpha * x + (1 - alpha) * y


@_register
class LinearBridge(BridgeLayer):
    """(e) W [x; y]."""

    def build_merge(self, shape):
        self.linear = self._dense(_joined_shape(shape), shape[-1], "linear")

    def merge(self, x, y, mask=None):
        return self.linear(ops.concatenate([x, y], axis=-1))


@_register
class MLPBridge(BridgeLayer):
    """(f) W2 GELU(W1 [x; y]), hidden width 2D."""

    def build_merge(self, shape):
        both = _joined_shape(shape)
        self.hidden = self._dense(both, both[-1], "hidden", activation="gelu")
        self.output_dense = self._dense(both, shape[-1], "output")

    def merge(self, x, y, mask=None):
        return self.output_dense(self.hidden(ops.concatenate([x, y], axis=-1)))


@_register
class CrossAttentionBridge(BridgeLayer):
    """(g) MCA(x, y): multi-head attention from x to y."""

    def build_merge(self, shape):
        self.attention = attention(
            self, self.hidden_dim, self.num_heads, self.dropout, "attention"
        )
        self.attention.build(shape, shape)

    def merge(self, x, y, mask=None):
        if mask is not None:
            mask = ops.expand_dims(mask, 1)
        return self.attention(x, y, attention_mask=mask)


@_register
class CrossAttentionFFNBridge(CrossAttentionBridge):
    """(h) FFN(MCA(x, y)), hidden width 4D."""

    def build_merge(self, shape):
        super().build_merge(shape)
        width = 4 * shape[-1]
        self.hidden = self._dense(shape, width, "hidden", activation="gelu")
        hidden = (*shape[:-1], width)
        self.output_dense = self._dense(hidden, shape[-1], "output")

    def merge(self, x, y, mask=None):
        attended = super().merge(x, y, mask)
        return self.output_dense(self.hidden(attended))


@_register
class AddLinearBridge(BridgeLayer):
    """(i) x + y + W [x; y], with W initially 0."""

    def build_merge(self, shape):
        both, zeros = _joined_shape(shape), {"kernel_initializer": "zeros"}
        self.linear = self._dense(both, shape[-1], "linear", **zeros)

    def merge(self, x, y, mask=None):
        return x + y + self.linear(ops.concatenate([x, y], axis=-1))


@_register
class ScaledAddBridge(BridgeLayer):
    """transformers' `scaled_add`: x + s * y with a scalar s, initially 1."""

    def build_merge(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def merge(self, x, y, mask=None):
        return x + self.scale * y


@_register
class InterpolateScalarBridge(BridgeLayer):
    """transformers' `interpolate`: b * x + (1 - b) * y, b initially 0.5."""

    def build_merge(self, shape):
        self.beta = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(0.5), name="beta"
        )

    def merge(self, x, y, mask=None):
        return self.beta * x + (1 - self.beta) * y


BRIDGES = {
    "add": AddBridge,  # (a)
    "multiply": MultiplyBridge,  # (b)
    "interpolate": InterpolateBridge,  # (c); not that of transformers, below
    "gate": GateBridge,  # (d)
    "linear": LinearBridge,  # (e)
    "mlp": MLPBridge,  # (f)
    "cross_attention": CrossAttentionBridge,  # (g)
    "cross_attention_ffn": CrossAttentionFFNBridge,  # (h)
    "add_linear": AddLinearBridge,  # (i)
    "scaled_add": ScaledAddBridge,
    "interpolate_scalar": InterpolateScalarBridge,  # their "interpolate"
}


def get(
    identifier, hidden_dim, num_heads=1, dropout=0.0, epsilon=1e-5, **kwargs
):
    """Create the bridge of an identifier.

    Args:
        identifier: a name of `BRIDGES`, a registered name such as
            `"my_package>MyBridge"`, or a subclass of `BridgeLayer`.
        hidden_dim, num_heads, dropout, epsilon: as `BridgeLayer`.
        **kwargs: `name` and `dtype` of the layer.

    Example:

    ```python
    get("gate", hidden_dim=16)
    ```
    """
    return get_class(identifier)(
        hidden_dim, num_heads, dropout, epsilon, **kwargs
    )


def get_class(identifier):
    """Return the class of a bridge or manager.

    Args:
        identifier: as `serialize`.
    """
    name = serialize(identifier)
    return _NAMED.get(name) or keras.saving.get_registered_object(name)


# All values of `bridge` that are names.
_NAMED = BRIDGES | MANAGERS


def serialize(identifier):
    """Return the name of a bridge or manager in a config.

    Args:
        identifier: a name, a registered name, or a class, as in `get`; also
            of `managers.MANAGERS` and of a `ManagerLayer`.

    Raises:
        ValueError: an unknown bridge; it lists all names.
    """
    bases, name = (BridgeLayer, ManagerLayer), identifier
    if isinstance(identifier, type):
        names = {cls: name for name, cls in _NAMED.items()}
        registered = keras.saving.get_registered_name(identifier)
        name = names.get(identifier, registered)
    if isinstance(name, str):
        cls = _NAMED.get(name) or keras.saving.get_registered_object(name)
        if isinstance(cls, type) and issubclass(cls, bases):
            return name
    raise ValueError(
        f"`bridge` must be one of {sorted(_NAMED)}, None, or a registered "
        "subclass of `BridgeLayer` or `ManagerLayer`. "
        f"Received: bridge={identifier!r}"
    )
