"""Multi-head attention: fused at inference, and open to be looked into."""

import contextlib
import contextvars

import keras
from keras import ops

# Of the thread that set them: one that asks for maps does not see what other
# threads compute.
_WATCHERS = contextvars.ContextVar("watchers of attention", default=())


@contextlib.contextmanager
def watch_attention(watcher):
    """Show `watcher` the attention weights of every layer of ours inside.

    Only eager calls can be watched: a compiled function runs its layers when
    it is traced and never again. What other threads call is not watched.

    Args:
        watcher: callable that takes a layer's name and its weights, a tensor
            `(batch, heads, queries, keys)` whose rows sum to 1, and returns
            the weights to go on with.
    """
    with _watched_by((*_WATCHERS.get(), watcher)):
        yield


def unwatched():
    """A context in which nobody watches, such as while a graph is made."""
    return _watched_by(())


@contextlib.contextmanager
def _watched_by(watchers):
    before = _WATCHERS.set(watchers)
    try:
        yield
    finally:
        _WATCHERS.reset(before)


@contextlib.contextmanager
def capture_attention():
    """Collect the attention maps of every layer of ours that runs inside.

    Eager calls only, as `watch_attention`.

    Yields:
        dict from the layer's name to its weights, a tensor of shape
        `(batch, heads, queries, keys)` whose rows sum to 1 over the keys.
        Where a layer ran several times the last run stands.

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
    """Multi-head attention that is fused whenever nothing forbids it.

    Keras' own layer never uses `ops.dot_product_attention` once it was built
    with dropout, not even at inference. This one decides at every call: the
    weights are materialised only when attention dropout is active or somebody
    asked for them. The numbers are the same.

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
        if not (drops or return_attention_scores or _WATCHERS.get()):
            if attention_mask is not None:
                attention_mask = ops.expand_dims(attention_mask, 1)
            fused = ops.dot_product_attention(
                query, key, value, mask=attention_mask
            )
            return fused, None
        # Asked for its scores, the parent takes its unfused path.
        return super()._compute_attention(
            query,
            key,
            value,
            attention_mask=attention_mask,
            training=training,
            return_attention_scores=True,
        )

    def _masked_softmax(self, attention_scores, attention_mask=None):
        weights = super()._masked_softmax(attention_scores, attention_mask)
        for watcher in _WATCHERS.get():
            weights = watcher(self.name, weights)
        return weights


def attention(hidden_dim, num_heads, dropout, dtype, name):
    """Our attention layer over `hidden_dim`, by the project's conventions."""
    return BridgeTowerAttention(
        num_heads=num_heads,
        key_dim=hidden_dim // num_heads,
        dropout=dropout,
        kernel_initializer=initializer(),
        dtype=dtype,
        name=name,
    )


def initializer():
    """The authors' initial weights: normal, standard deviation 0.02."""
    return keras.initializers.RandomNormal(stddev=0.02)
