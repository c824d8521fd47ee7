"""The few things that truly differ by backend.

Backend modules are imported inside the functions only, so importing the
package costs no framework that Keras itself has not loaded.
"""

import contextlib

import keras
import numpy as np


def inference_scope():
    """A context in which eager calls keep nothing for a backward pass.

    PyTorch records every eager operation unless told otherwise; TensorFlow
    and JAX record only inside a tape or a transformation.

    Returns:
        A context manager.
    """
    if keras.config.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def local_part(variable):
    """What this process has of a variable: all of it, unless hosts share it.

    Returns:
        NumPy array.
    """
    value = variable.value
    if keras.config.backend() == "jax" and not isinstance(value, np.ndarray):
        # Of an array over several hosts, the parts of others cannot be read.
        # Once it was gathered, it is one of NumPy.
        value = value.addressable_data(0)
    return keras.ops.convert_to_numpy(value)


def after_reading(batch):
    """A context whose operations wait until a batch has been read.

    TensorFlow runs what a compiled step does without its batch beside the
    reading: at the end of a dataset of unknown length the optimizer would
    count one step more, and dropout would draw.

    Args:
        batch: tensors, in any structure, of the step that is being traced.

    Returns:
        A context manager; on other backends it does nothing.
    """
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    parts = tf.nest.flatten(batch, expand_composites=True)
    return tf.control_dependencies([x for x in parts if tf.is_tensor(x)])


@contextlib.contextmanager
def kept_weights(model):
    """A context after which a model has its weights, whatever was raised.

    On JAX, `fit`, `evaluate` and `predict` take them out of the model, and
    would not put them back after an error, `fit` after one in its first step.

    Args:
        model: a `keras.Model`.
    """
    if keras.config.backend() != "jax":
        yield
        return
    optimizer = getattr(model, "optimizer", None)
    variables = [
        *model.variables,
        *model.metrics_variables,
        *(optimizer.variables if optimizer else ()),
    ]
    before = [v.value for v in variables]
    try:
        yield
    except BaseException:
        # What the last step returned, where it took over their memory.
        model.jax_state_sync()
        for variable, value in zip(variables, before, strict=True):
            if not value.is_deleted():
                variable.assign(value)
        raise


def lookup(table, ids):
    """Rows of a table, with a dense gradient on every backend.

    TensorFlow's own gradient is a list of slices in which a row that was
    looked up twice stands twice; Keras' optimizers then square and clip the
    parts instead of their sum.

    Args:
        table: float tensor `(rows, width)`.
        ids: int tensor of any shape.

    Returns:
        Float tensor, the shape of `ids` plus `(width,)`.
    """
    if keras.config.backend() != "tensorflow":
        return keras.ops.take(table, ids, axis=0)
    import tensorflow as tf

    @tf.custom_gradient
    def gather(table):
        def gradient(upstream):
            return tf.math.unsorted_segment_sum(
                upstream, ids, tf.shape(table)[0]
            )

        return tf.gather(table, ids), gradient

    # A variable would have to be handed to the gradient by name.
    return gather(tf.convert_to_tensor(table))


def gradients(function, arrays):
    """Gradients of a scalar with respect to arrays.

    Args:
        function: callable that takes a list of tensors and returns a scalar
            tensor.
        arrays: list of float arrays or tensors.

    Returns:
        List of NumPy arrays, the gradients, in the order of `arrays`.

    Example:

    ```python
    (g,) = gradients(lambda xs: keras.ops.sum(xs[0] ** 2), [np.ones(3)])
    ```
    """
    tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
    backend_gradients = {
        "tensorflow": _tensorflow_gradients,
        "jax": _jax_gradients,
        "torch": _torch_gradients,
    }[keras.config.backend()]
    return [
        keras.ops.convert_to_numpy(g)
        for g in backend_gradients(function, tensors)
    ]


def _tensorflow_gradients(function, tensors):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(tensors)
    return tape.gradient(
        value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def _jax_gradients(function, tensors):
    import jax

    return jax.grad(function)(tensors)


def _torch_gradients(function, tensors):
    import torch

    tensors = [t.detach().requires_grad_() for t in tensors]
    grads = torch.autograd.grad(function(tensors), tensors, allow_unused=True)
    return [
        torch.zeros_like(t) if g is None else g
        for g, t in zip(grads, tensors, strict=True)
    ]


def all_gather(x):
    """The rows of all replicas, in the order of the global batch.

    Differentiable: a row's gradient is the sum over the replicas that read it.

    Args:
        x: tensor `(batch, ...)`, the rows of this replica; their number may
            differ between replicas.

    Returns:
        `(rows, offset)`: tensor `(global batch, ...)`, and which of its rows
        is the first of `x`. JAX computes on global arrays: there, as on one
        device, `x` itself and 0.

    Example:

    ```python
    rows, offset = all_gather(keras.ops.ones((2, 3)))
    ```
    """
    gather = {"tensorflow": _tensorflow_gather, "torch": _torch_gather}
    return gather.get(keras.config.backend(), _on_one_replica)(x)


def global_sum(x):
    """A number summed over all replicas, for which no gradient is wanted.

    Args:
        x: scalar tensor.

    Returns:
        Scalar tensor.

    Example:

    ```python
    global_sum(keras.ops.ones(()))
    ```
    """
    rows, _ = all_gather(keras.ops.reshape(keras.ops.stop_gradient(x), (1,)))
    return keras.ops.sum(rows)


def random_state():
    """The state of the backend's own random generators.

    PyTorch draws what has no seed, such as KerasHub's dropout, from one for
    each kind of device; TensorFlow's and JAX's draws come from Keras' seeds
    alone.

    Returns:
        dict from name to array, for `set_random_state`.

    Example:

    ```python
    set_random_state(random_state())
    ```
    """
    if keras.config.backend() != "torch":
        return {}
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        # Of this process's own device: all processes of a run draw alike, and
        # one of them saves for all.
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy() for name, state in states.items()}


def set_random_state(states):
    """Set what `random_state` returned."""
    if not states:
        return
    import torch

    states = {name: torch.from_numpy(s.copy()) for name, s in states.items()}
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _on_one_replica(x):
    return x, 0


def _tensorflow_gather(x):
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return _on_one_replica(x)
    counts = context.all_gather(tf.shape(x)[:1], axis=0)
    index = context.replica_id_in_sync_group

    @tf.custom_gradient
    def dense(rows):
        # Of rows that were taken it is `IndexedSlices`, at which the gradient
        # of TensorFlow's gathering fails.
        return tf.identity(rows), tf.convert_to_tensor

    rows = dense(context.all_gather(x, axis=0))
    return rows, tf.reduce_sum(counts[:index])


def _torch_gather(x):
    import torch
    import torch.distributed as dist

    # Keras builds losses and metrics on tensors without values.
    if not (dist.is_available() and dist.is_initialized()) or x.is_meta:
        return _on_one_replica(x)
    replicas, own = range(dist.get_world_size()), x.shape[0]
    counts = [torch.tensor([own], device=x.device) for _ in replicas]
    dist.all_gather(counts, torch.tensor([own], device=x.device))
    counts = [int(count) for count in counts]
    offset = sum(counts[: dist.get_rank()])

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            # All replicas must send as much, so what is missing is filled up.
            sent = x.new_zeros((max(counts), *x.shape[1:]))
            sent[:own] = x
            parts = [torch.empty_like(sent) for _ in replicas]
            dist.all_gather(parts, sent)
            parts = zip(parts, counts, strict=True)
            return torch.cat([part[:count] for part, count in parts])

        @staticmethod
        def backward(ctx, gradient):
            # A copy: the incoming one may be read elsewhere.
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
            return gradient[offset : offset + own]

    return Gather.apply(x), offset
