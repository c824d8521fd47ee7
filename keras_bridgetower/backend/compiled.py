"""A model's forward pass, compiled, that reads weights and changes nothing.

`keras.Model.predict` takes the weights out of the model on JAX, and keeps a
compiled function on TensorFlow and JAX whatever becomes of the layers. What
stands here may be called from any number of threads, and `Structure` says
whether a compiled function still is that of the layers.
"""

import operator

import keras

from keras_bridgetower.backend import keras_patches

# What layers and models note about having run; nothing that they compute by.
# PyTorch's `training` is not asked: every call says it.
_NOTES_OF_LAYERS = ("_called", "_parent_path", "_trainable", "training")
_NOTES_OF_MODELS = {
    "history",
    "predict_function",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "test_function",
    "train_function",
    "training",
}


def forward(model, settings):
    """The forward pass of a model, at inference, as a function.

    Args:
        model: a `keras.Model`, which holds every weight that it reads.
        settings: the model whose `run_eagerly` and `jit_compile` count.

    Returns:
        Callable from a dict of NumPy arrays to what the model returns. It
        reads the weights anew at each call.

    Example:

    ```python
    forward(backbone, backbone)(features)["pooled"].shape  # (3, 32)
    ```
    """
    backend = {
        "tensorflow": _tensorflow_forward,
        "jax": _jax_forward,
        "torch": _torch_forward,
    }[keras.config.backend()]
    return backend(model, settings)


def is_eager(settings):
    """Whether models of these settings run op by op."""
    if settings.run_eagerly:
        return True
    # TensorFlow makes a graph in any case.
    graph = keras.config.backend() == "tensorflow"
    return not (graph or settings.jit_compile)


def takes_weights():
    """Whether Keras' own `predict` and `evaluate` take weights away."""
    return keras.config.backend() == "jax"


def restore_weights(model):
    """Give a model its weights in the middle of its own `fit`.

    Args:
        model: a `keras.Model`, called by the thread that trains it.

    Raises:
        RuntimeError: they are in the hands of another model or thread.
    """
    if keras.config.backend() != "jax":
        return
    model.jax_state_sync()
    missing = keras_patches.without_value(model.variables)
    if missing:
        raise RuntimeError(
            "The weights of this model are in use by the `fit`, `evaluate` "
            "or `predict` of a model that shares them. Wait until it has "
            f"returned. Received: {missing[0]!r} without a value"
        )


class Structure:
    """All that a compiled function of layers was made from, but values.

    Two are equal if the layers are the same objects, with the same objects
    as attributes: activations, dtype policies, adapters, variables. Values of
    weights may differ.

    Args:
        model: a `keras.Model`.
        settings: as `forward`.
    """

    def __init__(self, model, settings):
        parts = [settings.run_eagerly, settings.jit_compile]
        for layer in (model, *keras_patches.layers_in(model)):
            # A copy: other threads may set attributes meanwhile.
            own = vars(layer).copy()
            parts.append(layer)
            if isinstance(layer, keras.Model):
                parts += [x for name, x in own.items() if _counts(name)]
                continue
            # A model has tens of thousands; to pick them takes long.
            for name in _NOTES_OF_LAYERS:
                own.pop(name, None)
            parts += own.values()
        # Kept, so that no other object takes the place of one of them.
        self._parts = parts

    def __eq__(self, other):
        own, others = self._parts, getattr(other, "_parts", ())
        alike = len(own) == len(others)
        return alike and all(map(operator.is_, own, others))

    __hash__ = None


def _counts(name):
    """Whether a model computes by an attribute; most are its trainer's."""
    private = name[0] == "_" and name != "_dtype_policy"
    return not private and name not in _NOTES_OF_MODELS


def _tensorflow_forward(model, settings):
    import tensorflow as tf

    def run(inputs):
        return model(inputs, training=False)

    if not settings.run_eagerly:
        run = tf.function(
            run, autograph=False, jit_compile=settings.jit_compile
        )
    return lambda inputs: run(
        {name: tf.convert_to_tensor(x) for name, x in inputs.items()}
    )


def _torch_forward(model, settings):
    import torch

    def run(inputs):
        return model(inputs, training=False)

    if settings.jit_compile and not settings.run_eagerly:
        run = torch.compile(run)

    def without_gradients(inputs):
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        with torch.no_grad():
            return run(tensors)

    return without_gradients


def _jax_forward(model, settings):
    import jax

    if is_eager(settings):
        return lambda inputs: _whole_here(
            model(_laid_out(inputs), training=False)
        )
    variables = model.variables

    @jax.jit
    def run(values, inputs):
        pairs = zip(variables, values, strict=True)
        with keras.StatelessScope(state_mapping=pairs):
            return model(inputs, training=False)

    return lambda inputs: _whole_here(
        run([v.value for v in variables], _laid_out(inputs))
    )


def _whole_here(outputs):
    """JAX: outputs whose parts several hosts hold, whole on this one."""
    import jax

    distribution = keras.distribution.distribution()
    if distribution is None or jax.process_count() == 1:
        return outputs
    everywhere = jax.sharding.NamedSharding(
        distribution.device_mesh.backend_mesh, jax.sharding.PartitionSpec()
    )
    outputs = jax.jit(lambda x: x, out_shardings=everywhere)(outputs)
    return keras.tree.map_structure(lambda x: x.addressable_data(0), outputs)


def _laid_out(inputs):
    """JAX: rows divided among devices where their number allows it."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    mesh = distribution.device_mesh
    count = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]

    def laid_out(x):
        # As they are they stand on every device.
        if x.shape[0] % count:
            return x
        return keras.distribution.distribute_tensor(
            keras.ops.convert_to_tensor(x),
            distribution.get_data_layout(x.shape),
        )

    return keras.tree.map_structure(laid_out, inputs)
