"""The weights of a model with its LoRA adapters merged in, for export."""

from keras_bridgetower.backend.keras_private import patches as keras_patches

# Names of the weights that have adapters. The layer's property of this name
# returns the weight with its adapter added.
_ADAPTED = ("kernel", "embeddings")


def merged_weights(model):
    """Paths and values of a model's weights, with its adapters merged in.

    Args:
        model: a built layer or model that is not quantized.

    Returns:
        list of `(path, value)` in the order of the model's weights, without
        those of adapters. A value is the variable itself, or a tensor if the
        weight has an adapter.
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
