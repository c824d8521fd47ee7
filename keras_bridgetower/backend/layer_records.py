"""Records how layers differ from new ones, and restores it in a new model.

A configuration has up to three records. `POLICIES` are the dtype policies that
differ from the model's, by number and class of a layer. `QUANTIZED` are the
layers that Keras' `quantize` has turned into integers with scales, by method,
such as `{"int8": ["0 Embedding", "3 Dense"]}`. `FROZEN` are the frozen weights
by number and name, such as `["3 kernel"]`. Presets have no frozen weights.
"""

import logging
import re

import keras

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.layers import weights_to_train
from keras_bridgetower.backend.keras_private.models import (
    quantize_without_values,
)

_LOG = logging.getLogger(__name__)
# Keys of a configuration, which are absent if they do not apply.
POLICIES = "policies_of_layers"
QUANTIZED = "quantized_layers"
FROZEN = "frozen_weights"
MERGED = "adapters_merged"
STATE = (FROZEN, MERGED)
# Keys that are not saved in a preset.
KEYS = (*STATE, "trainable")
INT8 = "int8"
# `int8` weights with float activations.
INT8_WEIGHTS = "int8_weights"
# With the rows of a block, such as `int4/128`; `int4/-1` has no blocks.
_INT4 = re.compile(r"int4/(-1|[1-9]\d{0,8})")
ALLOWED = (
    '`quantize("int8")`, with or without quantized activations, or '
    '`quantize("int4")`'
)


def numbered_layers(model):
    """Return the innermost layers with weights, by number and class.

    Paths are not used, because they may differ in the loaded model.

    Args:
        model: a built layer or model, which may itself be innermost.

    Returns:
        dict from keys, such as `"3 Dense"`, to layers.
    """
    own = [
        layer
        for layer in (model, *layers_in(model))
        if layer.weights and not layers_in(layer)
    ]
    found = _sorted(model, own, lambda x: x.weights[0].path.rpartition("/")[0])
    return {f"{i} {type(layer).__name__}": layer for i, layer in found}


def _numbered_weights(model):
    """Return the weights that can be trained, by number and name."""
    found = _sorted(model, _weights_in(model), lambda weight: weight.path)
    return {f"{i} {weight.name}": weight for i, weight in found}


def _sorted(model, parts, path):
    """Return numbers and layers or weights, sorted by their path.

    The order of layers differs by backend. Two encoders may have layers of the
    same paths: these are sorted by the names of the models around them.
    """
    around = {id(part): set() for part in parts}
    for outer in (model, *layers_in(model)):
        if isinstance(outer, keras.Model):
            for inner in layers_in(outer):
                for part in (inner, *weights_to_train(inner)):
                    around.get(id(part), set()).add(outer.name)

    def key(part):
        # `dense_10` comes after `dense_9`.
        words = re.split(r"(\d+)", path(part))
        words = [int(w) if w.isdecimal() else w for w in words]
        return words, sorted(around[id(part)])

    return enumerate(sorted(parts, key=key))


def _weights_in(layer):
    """Return the weights in a layer, at any depth, that can be trained."""
    layers = [layer, *layers_in(layer)]
    return list(
        {id(w): w for x in layers for w in weights_to_train(x)}.values()
    )


def _at(numbered, key):
    """Return the layer or weight of a saved key."""
    if key not in numbered:
        raise ValueError(
            f"Layers must be those that were saved. Received: {key!r:.100}"
        )
    return numbered[key]


def changed_policies(model, usual):
    """Return the dtype policies of layers that differ from the model's.

    Args:
        model: a built model.
        usual: `keras.DTypePolicy` that the model was built with, or a map.

    Returns:
        dict from the number and class of a layer to its serialized policy. A
        quantized layer has its policy from before quantization.
    """
    usual = before_quantization(getattr(usual, "default_policy", usual))
    layers = numbered_layers(model).items()
    policies = {key: float_policy(layer) for key, layer in layers}
    return {
        key: keras.dtype_policies.serialize(policy)
        for key, policy in policies.items()
        if policy.name != usual.name
    }


def restore_policies(model, changed):
    """Set the policies that `changed_policies` returned, or None."""
    layers = numbered_layers(model)
    for key, policy in (changed or {}).items():
        policy = keras.dtype_policies.deserialize(policy)
        _at(layers, key).dtype_policy = policy


def float_policy(layer):
    """Return the dtype policy of a layer, or that before quantization."""
    return before_quantization(_policy(layer))


def before_quantization(policy):
    """Return the policy, or map of policies, of a model before `quantize`."""
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        usual = before_quantization(policy.default_policy)
        others = {k: before_quantization(v) for k, v in policy.items()}
        others = {k: v for k, v in others.items() if v != usual}
        return type(policy)(usual, others) if others else usual
    if policy.quantization_mode is None:
        return policy
    # Names of quantized policies are lost when Keras saves a map of them.
    name = policy.compute_dtype
    if policy.variable_dtype != name:
        name = f"mixed_{name}"
    return keras.dtype_policies.get(name)


def _policy(layer):
    """Return the dtype policy of a layer, which may have a map of policies."""
    policy = layer.dtype_policy
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return policy[layer.path] if is_map else policy


def check_one_policy(*models):
    """Raise if a model to save as a preset has several dtype policies."""
    for model in models:
        policies = model.get_config().get(POLICIES)
        if policies:
            raise ValueError(
                "A preset has one dtype policy for all layers. Use "
                f"`model.save`. Received: {sorted(policies)!r:.200} with others"
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
    for key, layer in numbered_layers(model).items():
        if layer.quantization_mode is not None:
            found.setdefault(_method(layer), []).append(key)
    return found


def _method(layer):
    """Return the key of a layer in `quantized_layers`."""
    mode, config = layer.quantization_mode, layer.quantization_config
    method = mode
    if mode == "int4":
        method = f"int4/{_policy(layer).block_size}"
    elif mode == INT8 and config and config.activation_quantizer is None:
        method = INT8_WEIGHTS
    known = _config(method)
    if known is None or (config and _inputs(config) != _inputs(known)):
        raise ValueError(
            f"A model can be saved that was quantized by {ALLOWED}, with "
            f"Keras' own quantizer. Received: {layer.path} quantized to {mode}"
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
    layers = numbered_layers(model)
    for method, keys in dict(saved or {}).items():
        config = _config(method)
        if config is None:
            raise ValueError(
                f"`{QUANTIZED}` must name layers quantized by {ALLOWED}. "
                f"Received: {method!r:.100}"
            )
        for key in keys:
            layer = _at(layers, key)
            before = float_policy(layer).name
            if layer.compute_dtype == "float16" and config.mode == INT8:
                raise ValueError(
                    "`dtype` must not be float16 where layers are quantized "
                    f"to int8. Received: dtype={before!r}"
                )
            name = INT8 if config.mode == INT8 else method
            quantize_without_values(layer, config, f"{name}_from_{before}")


def check_not_quantized(model, doing, then="quantize the result"):
    """Raise if a model that must have float weights is quantized.

    Args:
        model: a layer or model.
        doing: str, the operation that needs floats; it begins the error.
        then: str, the next step with the float model, for the error.

    Raises:
        ValueError: a layer is quantized.
    """
    for layer in numbered_layers(model).values():
        if layer.quantization_mode is not None:
            raise ValueError(
                f"{doing} needs weights that are not quantized: {then}. "
                f"Received: {layer.path} quantized to {layer.quantization_mode}"
            )


def frozen_state(model):
    """Return the frozen weights of a layer or model for its configuration.

    Args:
        model: a built layer or model.

    Returns:
        dict: `FROZEN`, a list of weights by number and name; or `MERGED`, True
        if LoRA adapters were enabled. They are saved merged, and freezing the
        same weights again would leave nothing to train. Empty if no weight is
        frozen.
    """
    layers = [model, *layers_in(model)]
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        return {MERGED: True}
    weights = _numbered_weights(model).items()
    frozen = [key for key, weight in weights if not weight.trainable]
    return {FROZEN: frozen} if frozen else {}


def restore_frozen(model, saved, parts=()):
    """Freeze the weights that `frozen_state` returned; warn of merged adapters.

    Args:
        model: a built layer or model of the same structure.
        saved: dict, as returned by `frozen_state`.
        parts: tuple of layers that have weights of the model but are not
            tracked by it.

    Raises:
        ValueError: the model has no weight of that number and name.
    """
    if saved.get(MERGED):
        _LOG.warning(
            "LoRA adapters were merged into its weights when this model was "
            "saved or copied. Call `enable_lora` again, or freeze layers."
        )
    weights = _numbered_weights(model)
    frozen = {id(_at(weights, key)) for key in saved.get(FROZEN) or ()}
    if not frozen:
        return
    # Outer layers first, because freezing a layer freezes its inner layers.
    layers = [(la, _weights_in(la)) for la in (*layers_in(model), *parts)]
    for layer, own in sorted(layers, key=lambda pair: -len(pair[1])):
        trained = not own or any(id(w) not in frozen for w in own)
        if layer.trainable != trained:
            layer.trainable = trained
    for weight in weights.values():
        if weight.trainable != (id(weight) not in frozen):
            weight.trainable = id(weight) not in frozen
