"""Runs NumPy functions in the same way eagerly and inside TensorFlow graphs."""

import builtins
import codecs
import contextlib
import re
import sys

import numpy as np

# How `numpy_function` tells of an error, which TensorFlow quotes as C does.
_TOLD = re.compile(r"assertion failed: \[ValueError: (.*)\]$", re.MULTILINE)
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
        told = _TOLD.search(str(error))
        if told:
            text, _ = codecs.escape_decode(told[1].encode())
            raise ValueError(text.decode()) from error
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
    dtypes = [dtype for dtype, _ in specs]
    outputs = numpy_function(function, inputs, dtypes)
    for output, (_, shape) in zip(outputs, specs, strict=True):
        output.set_shape(shape)
    return outputs if len(specs) > 1 else outputs[0]


def numpy_function(function, inputs, dtypes, stateful=True):
    """As `tf.numpy_function`, but our own errors come without a traceback.

    TensorFlow logs each error with its whole traceback. Of our checks one
    sentence is enough, so its text is returned, and an operation of the graph
    raises it.

    Args:
        function: callable that takes arrays and returns a list of them, or
            one where `dtypes` has one.
        inputs: list of arrays or tensors.
        dtypes: list of dtypes, one for each output.
        stateful: bool, whether it may return other values each time.

    Returns:
        List of tensors.
    """
    import tensorflow as tf

    dtypes = [tf.as_dtype(dtype) for dtype in dtypes]

    def result_or_error(*arrays):
        try:
            made = function(*arrays)
        except ValueError as error:
            if not _is_own(error):
                raise
            text = f"ValueError: {error}"
            return [*(_nothing(dtype) for dtype in dtypes), text.encode()]
        return [*(made if len(dtypes) > 1 else [made]), b""]

    inputs = [tf.convert_to_tensor(x) for x in inputs]
    *made, text = tf.numpy_function(
        result_or_error, inputs, [*dtypes, tf.string], stateful=stateful
    )
    with tf.control_dependencies([tf.debugging.Assert(text == b"", [text])]):
        return [tf.identity(x) for x in made]


def _is_own(error):
    """Whether this package raised an error, and none that it called."""
    step = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    name = step.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == _PACKAGE


def _nothing(dtype):
    return b"" if dtype.as_numpy_dtype is object else dtype.as_numpy_dtype(0)
