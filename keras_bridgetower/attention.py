"""Multi-head attention: fused at inference, and open to be looked into."""

import contextlib

import keras
from keras import ops

from keras_bridgetower import engine

_CAPTURES = []


@contextlib.contextmanager
def capture_attention():
    """Collect the attention maps of every layer of ours that runs inside.

    Only eager calls can be captured: a compiled function runs its layers when
    it is traced and never again.

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
    _CAPTURES.append(maps)
    try:
        yield maps
    finally:
        _CAPTURES.remove(maps)


def maps_of_layers(run, num_layers):
    """The maps of all cross-modal layers, from one eager run.

    Args:
        run: callable without arguments that runs a fusion.
        num_layers: int, cross-modal layers.

    Returns:
        dict from `"text_self"`, `"text_cross"`, `"image_self"`,
        `"image_cross"` to lists of arrays, lowest layer first.
    """
    with engine.inference_scope(), capture_attention() as maps:
        run()
    return {
        f"{side}_{kind}": [
            ops.convert_to_numpy(maps[f"layer_{layer}_{side}_{kind}_attention"])
            for layer in range(num_layers)
        ]
        for side in ("text", "image")
        for kind in ("self", "cross")
    }


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
        if not (drops or return_attention_scores or _CAPTURES):
            if attention_mask is not None:
                attention_mask = ops.expand_dims(attention_mask, 1)
            fused = ops.dot_product_attention(
                query, key, value, mask=attention_mask
            )
            return fused, None
        # Asked for its scores, the parent takes its unfused path.
        output, scores = super()._compute_attention(
            query,
            key,
            value,
            attention_mask=attention_mask,
            training=training,
            return_attention_scores=True,
        )
        for maps in _CAPTURES:
            maps[self.name] = scores
        return output, scores


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
