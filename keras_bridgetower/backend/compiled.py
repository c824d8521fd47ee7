"""Compiles forward passes without changing the model.

`keras.Model.predict` takes the weights out of the model on JAX. On TensorFlow
and JAX it also keeps its compiled function after weights were added. These
functions are thread-safe.
"""

import keras

from keras_bridgetower.backend.keras_private.training import eager_first
from keras_bridgetower.backend.keras_private.variables import has_value


def forward(model, settings):
    """Compile the forward pass of a model for inference.

    Args:
        model: a `keras.Model` that tracks all weights it uses.
        settings: the model whose `run_eagerly` and `jit_compile` are used.

    Returns:
        Callable from a dict of NumPy arrays to the outputs of the model. Each
        call uses the current values of the weights.

    Example:

    ```python
    forward(backbone, backbone)(features)["pooled"].shape  # (3, 32)
    ```
    """
    return {
        "tensorflow": _tensorflow_forward,
        "jax": _jax_forward,
        "torch": _torch_forward,
    }[keras.config.backend()](model, settings)


def is_eager(settings):
    """Return True if a model with these settings is not compiled."""
    # TensorFlow always makes a graph.
    graph = keras.config.backend() == "tensorflow"
    return settings.run_eagerly or not (graph or settings.jit_compile)


def run_once(settings):
    """Run a model eagerly where that is faster for a single batch.

    On TensorFlow, tracing takes longer than running a small preset once. JAX
    would compile each operation separately, and PyTorch compiles nothing.

    Args:
        settings: the model whose `run_eagerly` is set.
    """
    if keras.config.backend() == "tensorflow":
        settings.run_eagerly = True


def restore_weights(model):
    """Put the weights of a model back during its own `fit` (JAX).

    Args:
        model: a `keras.Model`, called by the thread that trains it.

    Raises:
        RuntimeError: another model or thread has taken the weights.
    """
    if keras.config.backend() != "jax":
        return
    model.jax_state_sync()
    missing = [v.path for v in model.variables if not has_value(v)]
    if missing:
        raise RuntimeError(
            "The weights of this model are in use by `fit`, `evaluate` or "
            f"`predict` of another. Received: {missing[0]!r} without a value"
        )


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

    others = run if is_eager(settings) else torch.compile(run)
    return torch.no_grad()(eager_first(run, others))


def _jax_forward(model, settings):
    import jax

    if is_eager(settings):
        return lambda inputs: _local(
            on_all_devices(model(_placed(inputs), training=False))
        )
    variables = model.variables

    @jax.jit
    def run(values, inputs):
        pairs = zip(variables, values, strict=True)
        with keras.StatelessScope(state_mapping=pairs):
            return on_all_devices(model(inputs, training=False))

    return lambda inputs: _local(
        run([v.value for v in variables], _placed(inputs))
    )


def _placed(inputs):
    """Divide inputs among the devices of JAX if the batch size allows it."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    mesh = distribution.device_mesh
    count = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]

    def placed(x):
        # An array that is not divided is copied to every device.
        if x.shape[0] % count:
            return x
        return keras.distribution.distribute_tensor(
            keras.ops.convert_to_tensor(x),
            distribution.get_data_layout(x.shape),
        )

    return keras.tree.map_structure(placed, inputs)


def on_all_devices(outputs):
    """Copy outputs to all devices of JAX, so that every host can read them.

    Args:
        outputs: nested structure of tensors, also inside a compiled step.

    Returns:
        The same structure; with a single host, the outputs themselves.
    """
    import jax

    distribution = keras.distribution.distribution()
    if distribution is None or jax.process_count() == 1:
        return outputs
    everywhere = jax.sharding.NamedSharding(
        distribution.device_mesh.backend_mesh, jax.sharding.PartitionSpec()
    )
    return jax.lax.with_sharding_constraint(outputs, everywhere)


def _local(outputs):
    """Return this host's copy of JAX outputs that are on all devices."""
    return keras.tree.map_structure(
        lambda x: x if x.is_fully_addressable else x.addressable_data(0),
        outputs,
    )
