"""Records which layers of a model Keras has quantized, and repeats it.

Keras' `quantize` turns weights of single layers into integers with scales. A
configuration names these layers by number and class, grouped by the way they
were quantized, such as `{"int8": ["0 Embedding", "3 Dense"]}`.
"""

import re

import keras

from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.models import (
    quantize_without_values,
)

# The key of a configuration for quantized layers; absent if there are none.
QUANTIZED = "quantized_layers"
INT8 = "int8"
# `int8` of weights alone: activations stay floats.
INT8_WEIGHTS = "int8_weights"
# By rows of a block, such as `int4/128`; `int4/-1` without blocks.
_INT4 = re.compile(r"int4/(-1|[1-9]\d{0,8})")
ALLOWED = (
    '`quantize("int8")`, with or without quantized activations, or '
    '`quantize("int4")`'
)


def quantized_layers(model):
    """The quantized layers of a layer or model, for its configuration.

    Args:
        model: a built layer or model.

    Returns:
        dict from the way of quantization, such as `"int8"`, to a list of
        layers, each by number and class; `{}` for a float model.

    Raises:
        ValueError: layers that were quantized in a way that is not saved.
    """
    found = {}
    for place, layer in precision.numbered_layers(model):
        if layer.quantization_mode is not None:
            found.setdefault(_way_of(layer), []).append(place)
    return found


def _way_of(layer):
    """The key of a layer among `quantized_layers`."""
    mode, config = layer.quantization_mode, layer.quantization_config
    way = mode
    if mode == "int4":
        way = f"int4/{precision.policy_of(layer).block_size}"
    elif mode == INT8 and config and config.activation_quantizer is None:
        way = INT8_WEIGHTS
    known = _config_of(way)
    if known is None or (config and _inputs(config) != _inputs(known)):
        raise ValueError(
            f"A model can be saved and copied that was quantized by {ALLOWED}, "
            "with Keras' own quantizer of activations. Save it before "
            f"`quantize`. Received: {layer.path} quantized to {mode}"
        )
    return way


def _inputs(config):
    """What a configuration says of activations, to be compared."""
    quantizer = config.activation_quantizer
    return quantizer and (type(quantizer), quantizer.get_config())


def _config_of(way):
    """The `QuantizationConfig` of a way of quantization, or None."""
    quantizers = keras.quantizers
    if way == INT8:
        return quantizers.Int8QuantizationConfig()
    if way == INT8_WEIGHTS:
        return quantizers.Int8QuantizationConfig(activation_quantizer=None)
    if match := _INT4.fullmatch(way):
        return quantizers.Int4QuantizationConfig(block_size=int(match[1]))
    return None


def quantize_as(model, saved):
    """Quantize the layers that `quantized_layers` named.

    Their integers are zeros: all weights must be loaded afterwards.

    Args:
        model: a built layer or model of the same structure.
        saved: what `quantized_layers` returned, or None.

    Raises:
        ValueError: other layers than those that were saved, or an unknown
            way of quantization.
    """
    layers = dict(precision.numbered_layers(model))
    for way, places in dict(saved or {}).items():
        config = _config_of(way)
        if config is None:
            raise ValueError(
                f"`{QUANTIZED}` must name layers quantized by {ALLOWED}. "
                f"Received: {way!r:.100}"
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
            name = "int8" if config.mode == INT8 else way
            policy = f"{name}_from_{precision.float_policy(layer).name}"
            quantize_without_values(layer, config, policy)


def check_not_quantized(model, doing, then="quantize the result"):
    """Refuse quantized layers where weights must be floats.

    Args:
        model: a layer or model.
        doing: str, what needs floats; it begins the error.
        then: str, what to do with the float model afterwards.

    Raises:
        ValueError: a quantized layer.
    """
    for _, layer in precision.numbered_layers(model):
        if layer.quantization_mode is not None:
            raise ValueError(
                f"{doing} needs weights that are not quantized. Take the "
                f"model as it was before `quantize`, and {then}. Received: "
                f"{layer.path} quantized to {layer.quantization_mode}"
            )
