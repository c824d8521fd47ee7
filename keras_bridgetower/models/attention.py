"""Multi-head attention with a fused kernel, and the maps of its weights."""

import contextlib
import threading

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend.keras_private.attention import fused_attention
from keras_bridgetower.backend.keras_private.attention import is_traced
from keras_bridgetower.backend.remat import remat


class _Watchers(threading.local):
    """The watchers of a thread.

    Unlike a context variable, `torch.compile` can read it.
    """

    all = ()


_WATCHERS = _Watchers()


@contextlib.contextmanager
def watch_attention(watcher):
    """Pass the weights of each attention layer to `watcher`, in a context.

    It sees the `BridgeTowerAttention` layers that this thread calls eagerly.
    Compiled functions cannot be watched: they run the Python code of their
    layers only when they are traced.

    Args:
        watcher: callable of a layer's name and its weights, a tensor
            `(batch, heads, queries, keys)` whose rows sum to 1. It returns
            the weights that the layer uses. None for no watchers in the
            context, where code is traced.
    """
    before = _WATCHERS.all
    _WATCHERS.all = (*before, watcher) if watcher else ()
    try:
        yield
    finally:
        _WATCHERS.all = before


def watched(name, weights):
    """Return the weights of a layer after all watchers have seen them."""
    for watcher in _WATCHERS.all:
        weights = watcher(name, weights)
    return weights


@contextlib.contextmanager
def capture_attention():
    """Collect the attention weights of all layers called in a context.

    It works for eager calls only, as `watch_attention`.

    Yields:
        dict from a layer's name to its weights, a tensor of shape
        `(batch, heads, queries, keys)` whose rows sum to 1 over the keys.
        If a layer runs several times, the last weights are kept.

    Example:

    ```python
    with capture_attention() as maps:
        layer(x, x)
    ```
    """
    maps = {}

    def keep(name, weights):
        maps[name] = weights
        return weights

    with watch_attention(keep):
        yield maps


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention that uses a fused kernel whenever possible.

    Keras' own layer never uses `ops.dot_product_attention` if it has dropout,
    not even at inference. This layer decides at every call: it computes the
    attention weights as a tensor only if dropout is active or the weights are
    requested. The outputs are the same.

    Args:
        num_heads: int, number of attention heads.
        key_dim: int, width of one head.
        dropout: float, share of attention weights dropped in training.
        **kwargs: as `keras.layers.MultiHeadAttention`.

    Example:

    ```python
    layer = BridgeTowerAttention(num_heads=2, key_dim=8, dropout=0.1)
    layer(np.ones((1, 4, 16)), np.ones((1, 6, 16))).shape  # (1, 4, 16)
    ```
    """

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        drops = bool(training) and self.dropout > 0
        scores = return_attention_scores or _WATCHERS.all
        if not (drops or scores or backend_ops.fused_attention_lags(query)):
            if attention_mask is not None:
                attention_mask = ops.expand_dims(attention_mask, 1)
            given = query, key, value
            return fused_attention(*given, mask=attention_mask), None
        compute = super()._compute_attention
        # Keras' layer is not fused if scores are requested.
        options = attention_mask, training, True
        if is_traced(query) and not scores:
            # As in `fused_attention`.
            return remat(
                self, lambda *x: compute(*x, *options)[0], query, key, value
            ), None
        return compute(query, key, value, *options)

    def _masked_softmax(self, attention_scores, attention_mask=None):
        weights = super()._masked_softmax(attention_scores, attention_mask)
        return watched(self.name, weights)


def attention(layer, hidden_dim, num_heads, dropout, name):
    """Create a `BridgeTowerAttention` of width `hidden_dim` for a layer."""
    return BridgeTowerAttention(
        num_heads=num_heads,
        key_dim=hidden_dim // num_heads,
        dropout=dropout,
        kernel_initializer=initializer(),
        dtype=layer.dtype_policy,
        name=name,
    )


def dense(layer, units, name, **kwargs):
    """Create a `Dense` for a layer, with the authors' initializer."""
    kwargs = {"kernel_initializer": initializer()} | kwargs
    return keras.layers.Dense(
        units, dtype=layer.dtype_policy, name=name, **kwargs
    )


def layer_norm(layer, epsilon, name="layer_norm"):
    """Create a `LayerNormalization` for a layer."""
    return keras.layers.LayerNormalization(
        epsilon=epsilon, dtype=layer.dtype_policy, name=name
    )


def initializer():
    """Return the authors' initializer: normal, standard deviation 0.02."""
    return keras.initializers.RandomNormal(stddev=0.02)


def attention_blocks(branches, text_tokens):
    """Compute the four attention maps of a step from its `branches`.

    Args:
        branches: list of float arrays `(batch, heads, T + P, T + P)`.
        text_tokens: int, T.

    Returns:
        dict of float arrays `(batch, heads, queries, keys)`: `"text_self"`,
        `"text_cross"`, `"image_self"`, `"image_cross"`. Every row sums to 1
        over the keys of its block. For merged attention this is the share of
        each token among the tokens of one modality, whatever the share of
        that modality.
    """
    total = sum(branches)
    text, image = slice(0, text_tokens), slice(text_tokens, None)
    blocks = {
        "text_self": total[..., text, text],
        "text_cross": total[..., text, image],
        "image_self": total[..., image, image],
        "image_cross": total[..., image, text],
    }
    tiny = np.finfo("float32").tiny
    return {
        name: block / np.maximum(block.sum(-1, keepdims=True), tiny)
        for name, block in blocks.items()
    }
