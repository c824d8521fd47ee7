"""Operations whose code depends on the backend.

Each framework is imported inside the functions that use it, so importing the
package loads no framework that Keras itself has not loaded.
"""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend.keras_private.variables import has_value


def inference_scope():
    """Return a context in which eager calls record no gradients.

    PyTorch records every eager operation by default. TensorFlow and JAX record
    only inside a tape or a transformation.

    Returns:
        A context manager.
    """
    if keras.config.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def local_part(variable):
    """Return the part of a variable that is on this host.

    It is the whole variable, unless JAX splits it over several hosts.

    Returns:
        NumPy array.
    """
    value = variable.value
    if keras.config.backend() == "jax" and not isinstance(value, np.ndarray):
        # Parts on other hosts cannot be read. A gathered array is already a
        # NumPy array.
        value = value.addressable_data(0)
    return keras.ops.convert_to_numpy(value)


def host_array(x):
    """Return the values of an array or tensor in host memory.

    Args:
        x: NumPy array, or tensor of the backend.

    Returns:
        NumPy array; None for a symbolic tensor, and for a tensor on an
        accelerator, which the host would have to wait for.

    Example:

    ```python
    host_array(keras.ops.ones(3)).sum()  # 3.0 on a CPU
    ```
    """
    if isinstance(x, np.ndarray):
        return x
    try:
        return keras.ops.convert_to_numpy(x) if _is_on_host(x) else None
    except RuntimeError:
        # Inside `torch.func` and `torch.vmap` a tensor has no values.
        return None


def _is_on_host(x):
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        if not (tf.executing_eagerly() and hasattr(x, "numpy")):
            return False
        return tf.is_tensor(x) and x.device.lower().endswith("cpu:0")
    if keras.config.backend() == "jax":
        import jax

        if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
            return False
        on_cpu = all(device.platform == "cpu" for device in x.devices())
        return on_cpu and x.is_fully_addressable
    import torch

    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    # `torch.export` passes subclasses without values.
    plain = type(x) in (torch.Tensor, torch.nn.Parameter)
    return plain and x.device.type == "cpu"


def after_reading(batch):
    """Return a context whose operations wait until a batch has been read.

    In a compiled step, TensorFlow runs operations that do not depend on the
    batch while it is still being read. At the end of a dataset of unknown
    length, the optimizer would count a step and dropout would draw a mask
    although there is no batch.

    Args:
        batch: nested structure of tensors, the batch of the traced step.

    Returns:
        A context manager; on other backends it does nothing.
    """
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    parts = tf.nest.flatten(batch, expand_composites=True)
    return tf.control_dependencies([x for x in parts if tf.is_tensor(x)])


@contextlib.contextmanager
def kept_weights(model, trains=False):
    """Restore the weights of a model if the `with` block raises.

    On JAX, `fit`, `evaluate` and `predict` take the weights out of the model.
    After an error `evaluate` and `predict` do not put them back, nor does
    `fit` if its first step fails.

    Args:
        model: a `keras.Model`.
        trains: bool, True if the optimizer is used, too.
    """
    if keras.config.backend() != "jax":
        yield
        return
    optimizer = getattr(model, "optimizer", None)
    if trains and optimizer and not optimizer.built:
        # `fit` would build it, but the values before are needed here.
        optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.metrics_variables]
    variables += optimizer.variables if optimizer else ()
    before = [v.value for v in variables]
    try:
        yield
    except BaseException:
        # A step may have reused the memory of the old values, so first put
        # those that it returned into the model.
        model.jax_state_sync()
        for variable, value in zip(variables, before, strict=True):
            if not value.is_deleted():
                variable.assign(value)
        # Metrics that were created inside have no value before.
        if not all(map(has_value, model.metrics_variables)):
            model.reset_metrics()
        raise


def lookup(table, ids):
    """Look up rows of a table, with a dense gradient on every backend.

    TensorFlow's own gradient is a list of slices. A row that was looked up
    twice is listed twice, and Keras' optimizers square and clip the two parts
    instead of their sum.

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

    # For a variable, `custom_gradient` would require an argument
    # `variables`, so pass a tensor.
    return gather(tf.convert_to_tensor(table))


def take_tokens(states, positions):
    """Take the states of tokens at positions that differ by text.

    On PyTorch `ops.take_along_axis` would fix the sizes of an exported model
    to those of its trace.

    Args:
        states: float tensor `(batch, tokens, width)`.
        positions: int tensor `(batch, M)`, from 0.

    Returns:
        Float tensor `(batch, M, width)`.
    """
    positions = keras.ops.expand_dims(positions, -1)
    symbolic = not keras.ops.is_tensor(states)
    if symbolic or keras.config.backend() != "torch":
        return keras.ops.take_along_axis(states, positions, axis=1)
    width = states.shape[-1]
    return states.gather(1, positions.long().expand(-1, -1, width))


def repeat_rows(x, count):
    """Repeat each row.

    On PyTorch `ops.repeat` turns the number into a tensor and reads it, for
    which a GPU would wait.

    Args:
        x: tensor `(rows, ...)`.
        count: int, how often.

    Returns:
        tensor `(rows * count, ...)`.
    """
    return ops.reshape(ops.stack([x] * count, 1), (-1, *ops.shape(x)[1:]))


def gradients(function, arrays):
    """Compute the gradients of a scalar with respect to arrays.

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
    # Zeros for tensors that the value does not depend on.
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(tensors)
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(value, tensors, unconnected_gradients=zero)
    elif keras.config.backend() == "jax":
        import jax

        found = jax.grad(function)(tensors)
    else:
        import torch

        tensors = [t.detach().requires_grad_() for t in tensors]
        found = torch.autograd.grad(
            function(tensors), tensors, materialize_grads=True
        )
    return [keras.ops.convert_to_numpy(g) for g in found]


def all_gather(x):
    """Concatenate the samples of all replicas, in the global batch's order.

    The gradient of a sample is the sum over all replicas.

    Args:
        x: tensor `(batch, ...)`, the samples of this replica; their number
            may differ between replicas.

    Returns:
        `(everything, offset)`: tensor `(global batch, ...)`, and the index of
        the first sample of `x` in it. On one device, and on JAX, whose arrays
        are global, these are `x` and 0.

    Example:

    ```python
    everything, offset = all_gather(keras.ops.ones((2, 3)))
    ```
    """
    gather = {"tensorflow": _tensorflow_gather, "torch": _torch_gather}
    return gather.get(keras.config.backend(), lambda x: (x, 0))(x)


def global_sum(x):
    """Sum a number over all replicas, without a gradient.

    Args:
        x: scalar tensor.

    Returns:
        Scalar tensor.

    Example:

    ```python
    global_sum(keras.ops.ones(()))
    ```
    """
    each, _ = all_gather(keras.ops.reshape(keras.ops.stop_gradient(x), (1,)))
    return keras.ops.sum(each)


def random_state():
    """Return the state of the backend's own random generators.

    PyTorch has one generator for each kind of device. Operations without a
    seed draw from it, such as KerasHub's dropout. On TensorFlow and JAX all
    draws come from Keras' seeds.

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
        # The generator of this process's own device only.
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy() for name, state in states.items()}


def set_random_state(states):
    """Restore a state that `random_state` returned."""
    if not states:
        return
    import torch

    states = {name: torch.from_numpy(s.copy()) for name, s in states.items()}
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _tensorflow_gather(x):
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x, 0
    # An element of a dataset has no device until an operation reads it, and
    # `all_gather` needs one.
    x = tf.identity(x)
    counts = context.all_gather(tf.shape(x)[:1], axis=0)
    index = context.replica_id_in_sync_group

    @tf.custom_gradient
    def with_dense_gradient(gathered):
        # After a lookup the gradient is `IndexedSlices`, which the gradient
        # of TensorFlow's `all_gather` cannot take.
        return tf.identity(gathered), tf.convert_to_tensor

    gathered = with_dense_gradient(context.all_gather(x, axis=0))
    return gathered, tf.reduce_sum(counts[:index])


def _torch_gather(x):
    import torch
    import torch.distributed as dist

    # Keras builds losses and metrics on `meta` tensors, which have no values.
    if not (dist.is_available() and dist.is_initialized()) or x.is_meta:
        return x, 0
    replicas, own = range(dist.get_world_size()), x.shape[0]
    counts = [torch.tensor([own], device=x.device) for _ in replicas]
    dist.all_gather(counts, torch.tensor([own], device=x.device))
    counts = [int(count) for count in counts]
    offset = sum(counts[: dist.get_rank()])

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            # All replicas must send tensors of one size, so pad with zeros.
            sent = x.new_zeros((max(counts), *x.shape[1:]))
            sent[:own] = x
            parts = [torch.empty_like(sent) for _ in replicas]
            dist.all_gather(parts, sent)
            parts = zip(parts, counts, strict=True)
            return torch.cat([part[:count] for part, count in parts])

        @staticmethod
        def backward(ctx, gradient):
            # A copy, because other code may still read the incoming gradient.
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
            return gradient[offset : offset + own]

    return Gather.apply(x), offset


def fused_attention_lags(query):
    """Return whether plain matrix products are faster than a fused kernel.

    PyTorch's kernel for CPUs takes four times as long for gradients in
    bfloat16 with 50 tokens, and 1.3 times with 330, for which the products
    need much more memory (PyTorch 2.13).

    Args:
        query: float tensor `(batch, tokens, heads, width)`.
    """
    return (
        keras.config.backend() == "torch"
        and getattr(query, "requires_grad", False)
        and keras.backend.standardize_dtype(query.dtype) == "bfloat16"
        and query.device.type == "cpu"
        # Last: in an exported model it would limit the number of tokens.
        and query.shape[1] <= 128
    )
