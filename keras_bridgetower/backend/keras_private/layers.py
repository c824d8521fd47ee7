"""Finds layers and weights that Keras does not list publicly."""

import keras

from keras_bridgetower.backend.keras_private.versions import check_version
from keras_bridgetower.backend.keras_private.versions import is_known


def layers_in(layer):
    """Return all layers inside a layer, at any depth.

    Keras' public `layers` lists only the top level of a model. On an unknown
    Keras, attributes of layers are searched, which may also find layers that
    Keras does not track.

    Args:
        layer: a layer or model.

    Returns:
        list of layers, each once.
    """
    if is_known():
        return list(layer._flatten_layers(include_self=False))
    return attribute_layers(layer)


def weights_to_train(layer):
    """Return the layer's own weights that are trained unless frozen.

    On an unknown Keras, return all of its own weights.
    """
    if is_known():
        return list(layer._trainable_variables)
    inner = {id(w) for one in layers_in(layer) for w in one.weights}
    return [w for w in layer.weights if id(w) not in inner]


def attribute_layers(layer):
    """Return the layers in the attributes of a layer, tracked or not."""
    found, waiting = {id(layer): layer}, [layer]
    while waiting:
        for inner in _layers_among(vars(waiting.pop()).values()):
            if id(inner) not in found:
                found[id(inner)] = inner
                waiting.append(inner)
    return list(found.values())[1:]


def _layers_among(values):
    for value in values:
        if isinstance(value, keras.layers.Layer):
            yield value
        elif isinstance(value, dict):
            yield from _layers_among(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _layers_among(value)


def source_layer(tensor):
    """Return the layer that produced a symbolic tensor, and its inputs.

    Keras' public `layer.input` is that of the layer's first call only.

    Args:
        tensor: a `keras.KerasTensor`.

    Returns:
        `(layer, inputs)`, the latter a list of symbolic tensors.

    Raises:
        RuntimeError: the version of Keras is unknown.
    """
    check_version("`image_norms='per_tap'`", "use `image_norms='shared'`")
    layer, node, _ = tensor._keras_history
    return layer, layer._inbound_nodes[node].input_tensors


def check_training_argument():
    """Raise if `training_argument` would raise."""
    check_version(
        "`checkpoint_activations`", "train without it, in more memory"
    )


def training_argument(layer):
    """Return the `training` argument of the running call of a model.

    Use it inside layers whose own `call` has no such argument.
    """
    check_training_argument()
    return layer._get_call_context().get_value("training")
