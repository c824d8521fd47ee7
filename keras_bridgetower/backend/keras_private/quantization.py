"""Quantizes layers without values, by private parts of Keras."""

import keras

from keras_bridgetower.backend.keras_private.versions import is_known

# Attributes of Keras' layers for the weights that become integers.
_BECOME_INTEGERS = ("_kernel", "_embeddings", "reverse_embeddings")


def quantize_without_values(layer, config, policy):
    """Quantize a built layer whose weights will all be loaded afterwards.

    The integers are zeros. `layer.quantize` computes them, and makes Python
    search the whole process for garbage once for each layer, which takes
    longer than all else. For an unknown Keras it is used nevertheless.

    Args:
        layer: a Dense, EinsumDense or embedding layer that has no adapter.
        config: a `keras.quantizers.QuantizationConfig`.
        policy: str, dtype policy of the quantized layer.

    Raises:
        ValueError: a layer that is quantized already, or has another class.
    """
    if not is_known():
        layer.quantize(config=config)
        return
    found = [vars(layer).get(name) for name in _BECOME_INTEGERS]
    replaced = [v for v in found if isinstance(v, keras.Variable)]
    layer._check_quantize_args(config.mode, layer.compute_dtype)
    if not replaced or not hasattr(layer, "quantization_config"):
        raise ValueError(
            "Only Dense, EinsumDense and embedding layers can be quantized. "
            f"Received: {layer.path} of class {type(layer).__name__}"
        )
    layer._tracker.unlock()
    try:
        for variable in replaced:
            layer._untrack_variable(variable)
        layer.quantization_config = config
        layer.quantized_build(replaced[0].shape, config.mode, config)
    finally:
        layer._tracker.lock()
    layer.dtype_policy = policy
