"""Finds layers, weights and arguments that Keras does not list publicly."""

import contextlib


def layers_in(layer):
    """Return all layers inside a layer, at any depth, each once.

    Keras' public `layers` lists only the top level of a model.

    Args:
        layer: a layer or model.
    """
    return list(layer._flatten_layers(include_self=False))


def weights_to_train(layer):
    """Return the layer's own weights that are trained unless frozen."""
    return list(layer._trainable_variables)


def source_layer(tensor):
    """Return the layer that produced a symbolic tensor, and its inputs.

    Keras' public `layer.input` is that of the layer's first call only.

    Args:
        tensor: a `keras.KerasTensor`.

    Returns:
        `(layer, inputs)`, the latter a list of symbolic tensors.
    """
    layer, node, _ = tensor._keras_history
    return layer, layer._inbound_nodes[node].input_tensors


def training_argument(layer):
    """Return the `training` argument of the running call of a model.

    Use it inside layers whose own `call` has no such argument.
    """
    return layer._get_call_context().get_value("training")


@contextlib.contextmanager
def training_set(layer, training):
    """Let layers inside a layer's `call` know its `training` argument.

    `layer(x)` tells them. On JAX Keras trains by `stateless_call`, which runs
    `call` alone: there they would have no dropout.
    """
    from keras.src.backend.common import global_state

    if global_state.get_global_attribute("current_call_ctx") is not None:
        yield
        return
    layer._get_call_context().set_value("training", training)
    try:
        yield
    finally:
        layer._maybe_reset_call_context()
