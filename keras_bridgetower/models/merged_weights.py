"""Weights as a model without adapters has them, to be written or copied."""

from keras_bridgetower.backend import keras_patches

# The weight that an adapter is added to; Keras' property of this name adds it.
_ADAPTED = ("kernel", "embeddings")


def merged_weights(model):
    """Paths and values of a model's weights, with its adapters merged in.

    Args:
        model: a built layer or model that is not quantized.

    Returns:
        list of `(path, value)` in the order of its weights, those of adapters
        left out. A value is the variable itself, or a tensor where there is
        an adapter.
    """
    merged, left_out = {}, set()
    for layer in (model, *keras_patches.layers_in(model)):
        if not getattr(layer, "lora_enabled", False):
            continue
        for weight in layer.weights:
            name = weight.path.rpartition("/")[2]
            if name in _ADAPTED:
                merged[id(weight)] = getattr(layer, name)
            elif name.startswith("lora_"):
                left_out.add(id(weight))
    return [
        (weight.path, merged.get(id(weight), weight))
        for weight in model.weights
        if id(weight) not in left_out
    ]
