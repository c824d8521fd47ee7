"""One code path eagerly and inside TensorFlow graphs."""

import sys

import numpy as np


def in_tf_graph():
    """Whether TensorFlow traces a graph now, as in `tf.data.Dataset.map`."""
    # What was never imported cannot be tracing, so it is not imported here.
    tf = sys.modules.get("tensorflow")
    return tf is not None and not tf.executing_eagerly()


def shape_of(x):
    """The shape of an array, tensor or nested list, as a tuple."""
    return tuple(x.shape if hasattr(x, "shape") else np.shape(x))


def apply_numpy(function, inputs, *specs):
    """Run a NumPy function, in a graph through `tf.numpy_function`.

    Args:
        function: callable that takes what `inputs` holds (arrays in a graph)
            and returns one array for each of `specs`.
        inputs: list of arrays, or of tensors in a graph.
        *specs: a pair `(dtype, shape)` for each output: its dtype as string,
            and its shape in a graph, with None where it is unknown.

    Returns:
        What `function` returns; in a graph tensors of these specs.

    Example:

    ```python
    apply_numpy(lambda x: x + 1, [np.ones(2)], ("float64", (2,)))
    ```
    """
    if not in_tf_graph():
        return function(*inputs)
    import tensorflow as tf

    outputs = tf.numpy_function(
        function,
        [tf.convert_to_tensor(x) for x in inputs],
        [dtype for dtype, _ in specs],
    )
    for output, (_, shape) in zip(outputs, specs, strict=True):
        output.set_shape(shape)
    return outputs if len(specs) > 1 else outputs[0]
