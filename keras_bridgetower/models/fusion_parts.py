"""Makes the layers of the fusion, as the arguments of the fusion say.

`fusion` is a `CrossModalEncoder` whose arguments are set, and `side` is
`"text"` or `"image"`.
"""

import keras

from keras_bridgetower.models import bridges
from keras_bridgetower.models.attention import initializer
from keras_bridgetower.models.merged_attention import CROSS_ENCODERS

PROJECTIONS = ("shared", "per_layer")


def projections(fusion, side):
    """One projection for all taps, or one for each."""
    tapped = sum(tap is not None for tap in fusion.taps)
    count = {"shared": 1, "per_layer": tapped}[fusion.projections]
    return [dense(fusion, f"{side}_projection_{i}") for i in range(count)]


def entry(fusion, side):
    """The layer through which the first state enters."""
    common = {"dtype": fusion.dtype_policy, "name": f"{side}_entry"}
    if fusion.bridge is None:
        return keras.layers.Identity(**common)
    return keras.layers.LayerNormalization(
        epsilon=fusion.bridge_epsilon, **common
    )


def bridge_layers(fusion, side):
    """A bridge or None for each cross-modal layer."""
    return [
        bridges.get(
            fusion.bridge,
            fusion.hidden_dim,
            fusion.num_heads,
            fusion.attention_dropout,
            fusion.bridge_epsilon,
            dtype=fusion.dtype_policy,
            name=f"{side}_bridge_{layer}",
        )
        if layer and tap is not None
        else None
        for layer, tap in enumerate(fusion.taps)
    ]


def steps(fusion):
    """The cross-modal layers, lowest first."""
    return [
        CROSS_ENCODERS[fusion.cross_encoder](
            fusion.hidden_dim,
            fusion.num_heads,
            fusion.intermediate_dim,
            fusion.dropout,
            fusion.layer_norm_epsilon,
            fusion.attention_dropout,
            dtype=fusion.dtype_policy,
            name=f"layer_{layer}",
        )
        for layer in range(fusion.num_layers)
    ]


def dense(fusion, name, activation=None):
    """A dense layer of the fusion's width."""
    return keras.layers.Dense(
        fusion.hidden_dim,
        activation=activation,
        kernel_initializer=initializer(),
        dtype=fusion.dtype_policy,
        name=name,
    )
