"""Builds the model of a variant, and counts its parameters."""

import numpy as np
from ablation_variants import IMAGE_ENCODERS
from ablation_variants import TEXT_ENCODERS

import keras_bridgetower as kbt
from keras_bridgetower.backend.uninitialized import shapes_only
from keras_bridgetower.checks import check_choice


def build(variant, size):
    """The untrained backbone of a variant.

    Raises:
        ValueError: the variant cannot be built.
    """
    check_choice("image encoder", variant.image, IMAGE_ENCODERS)
    check_choice("text encoder", variant.text, TEXT_ENCODERS)
    return kbt.BridgeTowerBackbone(
        IMAGE_ENCODERS[variant.image](size),
        TEXT_ENCODERS[variant.text](size),
        **_fusion_values(variant, size),
    )


def check(variants, size):
    """Build every variant without weights, so that errors come first."""
    for variant in variants:
        with shapes_only():
            build(variant, size)


def _fusion_values(variant, size):
    return {
        "hidden_dim": size.width,
        "num_heads": size.heads,
        "num_layers": size.layers,
        "dropout": size.dropout,
    } | variant.values


def _fusion(variant, size, **values):
    fusion = kbt.CrossModalEncoder(**_fusion_values(variant, size) | values)
    tapped = sum(tap is not None for tap in fusion.taps)
    states = [(None, None, size.width)] * tapped
    with shapes_only():
        fusion.build(states, states)
    return fusion


def weights_of(layer):
    """int, trainable weights of a layer or model."""
    return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


def _bridges(variant, size):
    """What a definition adds to layers without a bridge."""
    bare = _fusion(variant, size, bridge=None)
    return weights_of(_fusion(variant, size)) - weights_of(bare)


def _layers(variant, size):
    return sum(map(weights_of, _fusion(variant, size).steps))


def _model(variant, size):
    with shapes_only():
        return weights_of(build(variant, size))


COUNTS = {
    "bridges": _bridges,
    "cross-modal layers": _layers,
    "model": _model,
}


def count_text(count):
    """A count as the paper writes it: `"18.4K"`, `"113.4M"`."""
    unit, scale = ("K", 1e3) if count < 1e6 else ("M", 1e6)
    return f"{count / scale:.1f}{unit}"
