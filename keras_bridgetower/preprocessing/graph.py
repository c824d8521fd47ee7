"""One code path eagerly and inside TensorFlow graphs."""

import builtins
import contextlib
import re
import sys

import numpy as np

# How TensorFlow tells what a function of `tf.numpy_function` raised.
_RAISED = re.compile(
    r"\b(\w+Error): (.+?)\nTraceback \(most recent call last\)(.+)", re.DOTALL
)
_PACKAGE = __name__.partition(".")[0]


def in_tf_graph():
    """Whether TensorFlow traces a graph now, as in `tf.data.Dataset.map`."""
    # What was never imported cannot be tracing, so it is not imported here.
    tf = sys.modules.get("tensorflow")
    return tf is not None and not tf.executing_eagerly()


@contextlib.contextmanager
def typed_errors():
    """Errors of our own functions in a TensorFlow graph, as they were raised.

    There TensorFlow makes an `InvalidArgumentError` of them, with the names of
    nodes and a traceback in its text. That text is read, since TensorFlow's
    threads know nothing of the call that waits for them; an error of anyone
    else's function stays as it is.

    Example:

    ```python
    with typed_errors():
        features = next(iter(dataset.map(preprocessor)))
    ```
    """
    try:
        yield
    except Exception as error:
        found = _RAISED.search(str(error))
        kind = found and getattr(builtins, found[1], None)
        if not kind or f"{_PACKAGE}/" not in found[3].replace("\\", "/"):
            raise
        raise kind(found[2]) from error


@contextlib.contextmanager
def as_raised():
    """Errors while TensorFlow traces a function, as they were raised.

    AutoGraph makes another one of the same type, which lists the lines of all
    files that led there.
    """
    try:
        yield
    except Exception as error:
        first = error.__context__
        if type(first) is not type(error) or str(first) not in str(error):
            raise
        raise first from None


def is_string_tensor(x):
    """Whether `x` is a tensor of TensorFlow's one type for texts and bytes."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and tf.is_tensor(x) and x.dtype == tf.string


def shape_of(x):
    """The shape of an array, tensor or nested list, as a tuple."""
    return tuple(x.shape if hasattr(x, "shape") else np.shape(x))


def shape_of_rows(x):
    """As `shape_of`, of a list by its first row: the others may differ."""
    if not isinstance(x, (list, tuple)):
        return shape_of(x)
    return (len(x), *(shape_of_rows(x[0]) if x else ()))


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
