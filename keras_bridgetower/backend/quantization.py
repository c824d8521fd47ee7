"""Saves which layers of a model are quantized, and quantizes them again.

Keras' `quantize` turns weights of single layers into integers with scales. A
configuration lists these layers by number and class, grouped by method, such
as `{"int8": ["0 Embedding", "3 Dense"]}`.
"""

import re

import keras

from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.models import (
    quantize_without_values,
)

# Key of a configuration for quantized layers, absent if there are none.
QUANTIZED = "quantized_layers"
INT8 = "int8"
# `int8` weights with float activations.
INT8_WEIGHTS = "int8_weights"
# With the rows of a block, such as `int4/128`; `int4/-1` has no blocks.
_INT4 = re.compile(r"int4/(-1|[1-9]\d{0,8})")
ALLOWED = (
    '`quantize("int8")`, with or without quantized activations, or '
    '`quantize("int4")`'
)


def quantized_layers(model):
    """Return the quantized layers of a model for its configuration.

    Args:
        model: a built layer or model.

    Returns:
        dict from the method, such as `"int8"`, to a list of layers by number
        and class; `{}` for a float model.

    Raises:
        ValueError: a layer was quantized by a method that cannot be saved.
    """
    found = {}
    for place, layer in precision.numbered_layers(model):
        if layer.quantization_mode is not None:
            found.setdefault(_method(layer), []).append(place)
    return found


def _method(layer):
    """Return the key of a layer in `quantized_layers`."""
    mode, config = layer.quantization_mode, layer.quantization_config
    method = mode
    if mode == "int4":
        method = f"int4/{precision.layer_policy(layer).block_size}"
    elif mode == INT8 and config and config.activation_quantizer is None:
        method = INT8_WEIGHTS
    known = _config(method)
    if known is None or (config and _inputs(config) != _inputs(known)):
        raise ValueError(
            f"A model can be saved and copied that was quantized by {ALLOWED}, "
            "with Keras' own quantizer of activations. Save it before "
            f"`quantize`. Received: {layer.path} quantized to {mode}"
        )
    return method


def _inputs(config):
    """Return the settings for activations in comparable form."""
    quantizer = config.activation_quantizer
    return quantizer and (type(quantizer), quantizer.get_config())


def _config(method):
    """Return the `QuantizationConfig` of a method, or None."""
    quantizers = keras.quantizers
    if method == INT8:
        return quantizers.Int8QuantizationConfig()
    if method == INT8_WEIGHTS:
        return quantizers.Int8QuantizationConfig(activation_quantizer=None)
    if match := _INT4.fullmatch(method):
        return quantizers.Int4QuantizationConfig(block_size=int(match[1]))
    return None


def quantize_as(model, saved):
    """Quantize the layers that `quantized_layers` returned.

    Their integers are zeros, so all weights must be loaded afterwards.

    Args:
        model: a built layer or model of the same structure.
        saved: dict, as returned by `quantized_layers`, or None.

    Raises:
        ValueError: the model lacks a saved layer, or the method is unknown.
    """
    layers = dict(precision.numbered_layers(model))
    for method, places in dict(saved or {}).items():
        config = _config(method)
        if config is None:
            raise ValueError(
                f"`{QUANTIZED}` must name layers quantized by {ALLOWED}. "
                f"Received: {method!r:.100}"
            )
        for place in places:
            if place not in layers:
                raise ValueError(
                    "The layers must be those that were saved. Received: the "
                    f"quantized layer {place!r:.100}, which is not there"
                )
            layer = layers[place]
            if layer.compute_dtype == "float16" and config.mode == INT8:
                raise ValueError(
                    "`dtype` must compute in float32 or bfloat16 where layers "
                    "are quantized to int8. Received: dtype="
                    f"{precision.float_policy(layer).name!r}"
                )
            name = "int8" if config.mode == INT8 else method
            policy = f"{name}_from_{precision.float_policy(layer).name}"
            quantize_without_values(layer, config, policy)


def check_not_quantized(model, doing, then="quantize the result"):
    """Raise if a model that must have float weights is quantized.

    Args:
        model: a layer or model.
        doing: str, the operation that needs floats; it begins the error.
        then: str, the next step with the float model, for the error.

    Raises:
        ValueError: a layer is quantized.
    """
    for _, layer in precision.numbered_layers(model):
        if layer.quantization_mode is not None:
            raise ValueError(
                f"{doing} needs weights that are not quantized. Take the "
                f"model as it was before `quantize`, and {then}. Received: "
                f"{layer.path} quantized to {layer.quantization_mode}"
            )
