"""Runs NumPy functions eagerly and, unchanged, inside TensorFlow graphs."""

import atexit
import builtins
import codecs
import contextlib
import functools
import re
import sys
import threading
import time

import keras
import numpy as np

# An error that `numpy_function` passed on, with C's escapes.
_PASSED_ON = re.compile(
    r"assertion failed: \[ValueError: (.*)\]$", re.MULTILINE
)
# An error in a function of `tf.numpy_function`.
_RAISED = re.compile(
    r"\b(\w+Error): (.+?)\nTraceback \(most recent call last\)(.+)", re.DOTALL
)
_PACKAGE = __name__.partition(".")[0]
# The attribute of a graph with the errors of its functions.
_ERRORS = "keras_bridgetower_errors"


def in_tf_graph():
    """Return True while TensorFlow traces, as in `tf.data.Dataset.map`."""
    # Do not import TensorFlow: if nothing has, it is not tracing.
    tf = sys.modules.get("tensorflow")
    return tf is not None and not tf.executing_eagerly()


class DirectLayer(keras.layers.Layer):
    """Abstract: a layer without weights that does not change errors.

    `keras.layers.Layer.__call__` would append all arguments, including whole
    pictures, to an error, and reject dicts of tensors and strings. This class
    must be the last base, after KerasHub's classes.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True

    def __call__(self, *args, **kwargs):
        if not in_tf_graph():
            return self.call(*args, **kwargs)
        import tensorflow as tf

        # AutoGraph would rewrite `if` statements of Python.
        call = tf.autograph.experimental.do_not_convert(self.call)
        return call(*args, **kwargs)


@contextlib.contextmanager
def typed_errors():
    """A context in which our errors leave a TensorFlow graph as raised.

    TensorFlow turns them into an `InvalidArgumentError`, whose text has the
    names of nodes and a traceback. The error is restored from that text,
    because TensorFlow's threads do not know which call waits for them. Errors
    of functions outside this package are not changed.
    """
    try:
        yield
    except Exception as error:
        found = _PASSED_ON.search(str(error))
        if found:
            text, _ = codecs.escape_decode(found[1].encode())
            raise ValueError(text.decode()) from None
        found = _RAISED.search(str(error))
        kind = found and getattr(builtins, found[1], None)
        if not kind or f"{_PACKAGE}/" not in found[3].replace("\\", "/"):
            raise
        # TensorFlow has logged the traceback of the function.
        raise kind(found[2]) from None


def is_string_tensor(x):
    """Return True for a TensorFlow tensor of strings or bytes."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and tf.is_tensor(x) and x.dtype == tf.string


def static_shape(x):
    """Return the shape of an array, tensor or nested list as a tuple."""
    return tuple(x.shape if hasattr(x, "shape") else np.shape(x))


def apply_numpy(function, inputs, *specs):
    """Run a NumPy function, inside a graph through `tf.numpy_function`.

    Args:
        function: callable that takes the elements of `inputs` (arrays in a
            graph) and returns one array for each of `specs`.
        inputs: list of arrays, or of tensors in a graph.
        *specs: a pair `(dtype, shape)` for each output: its dtype as string,
            and its shape in a graph, with None for unknown sizes.

    Returns:
        The result of `function`; in a graph tensors of these specs.
    """
    if not in_tf_graph():
        return function(*inputs)
    dtypes = [dtype for dtype, _ in specs]
    outputs = numpy_function(function, inputs, dtypes)
    for output, (_, shape) in zip(outputs, specs, strict=True):
        output.set_shape(shape)
    return outputs if len(specs) > 1 else outputs[0]


def numpy_function(function, inputs, dtypes, stateful=True, blank=None):
    """Wrap `tf.numpy_function`, so that our errors come without a traceback.

    TensorFlow logs each error with its whole traceback. For our checks one
    sentence is enough: the function returns its text, and an operation of the
    graph raises it.

    Args:
        function: callable that takes arrays and returns a list of them, or
            one array for a single dtype.
        inputs: list of arrays or tensors.
        dtypes: list of dtypes, one for each output.
        stateful: bool, whether it may return other values each time.
        blank: callable of the inputs that returns outputs of the right shapes.
            With it, `returned_errors` passes errors on.

    Returns:
        List of tensors.
    """
    import tensorflow as tf

    errors = getattr(tf.compat.v1.get_default_graph(), _ERRORS, None)
    returned = errors is not None and blank is not None
    dtypes = [tf.as_dtype(dtype) for dtype in dtypes]
    nothing = [
        b"" if dtype.as_numpy_dtype is object else dtype.as_numpy_dtype(0)
        for dtype in dtypes
    ]

    def result_or_error(*arrays):
        try:
            outputs = function(*arrays)
        except ValueError as error:
            if not _is_own(error):
                raise
            outputs = blank(*arrays) if returned else nothing
            return [*outputs, f"ValueError: {error}".encode()]
        return [*(outputs if len(dtypes) > 1 else [outputs]), b""]

    inputs = [tf.convert_to_tensor(x) for x in inputs]
    *outputs, text = tf.numpy_function(
        until_exit(result_or_error, [*nothing, b""]),
        inputs,
        [*dtypes, tf.string],
        stateful=stateful,
    )
    if returned:
        errors.append(text)
        return outputs
    with tf.control_dependencies([tf.debugging.Assert(text == b"", [text])]):
        return [tf.identity(x) for x in outputs]


def returned_errors(function):
    """Return a function for a graph that returns errors beside its result.

    If an operation of a graph raised them, TensorFlow would log them.

    Args:
        function: callable of tensors.

    Returns:
        Callable that returns `(result, errors)`: texts `(N,)`, empty if
        nothing failed. Errors of other operations are raised as before.
    """
    import tensorflow as tf

    def call(*inputs):
        errors = []
        # Graphs within this one, such as loops, cannot return theirs.
        setattr(tf.compat.v1.get_default_graph(), _ERRORS, errors)
        result = function(*inputs)
        return result, tf.stack(errors) if errors else tf.constant([], "string")

    return call


def check_errors(result, errors):
    """Return the result of `returned_errors`, or raise its errors."""
    import tensorflow as tf

    text = tf.strings.reduce_join(errors)
    with tf.control_dependencies([tf.debugging.Assert(text == b"", [text])]):
        return tf.nest.map_structure(tf.identity, result)


def _is_own(error):
    """Return True if this package raised an error itself."""
    step = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    name = step.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == _PACKAGE


class _Calls:
    """Counts the calls of Python by TensorFlow's threads.

    When Python exits, an open dataset waits for its threads, and these wait for
    Python, which no longer runs them: the process would never end. So after the
    exit begins, calls return at once, until the buffers of the dataset are full
    and its threads stop calling.

    Attributes:
        running: int, calls that have not returned.
        ended: float, the time at which the last one returned.
        stopped: bool, whether calls return at once.
    """

    # Seconds without a call after which no more will come: between two calls
    # for one batch TensorFlow takes a few milliseconds.
    quiet = 0.3
    # Seconds that the exit waits at most.
    longest = 30.0

    def __init__(self):
        self.running, self.ended, self.stopped = 0, 0.0, False
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.running += 1

    def __exit__(self, *error):
        with self._lock:
            self.running -= 1
            self.ended = time.monotonic()

    def wait(self):
        """Wait until there are no more calls."""
        start = time.monotonic()
        while time.monotonic() < start + self.longest and (
            self.running or time.monotonic() < self.ended + self.quiet
        ):
            time.sleep(0.01)


_CALLS = _Calls()


def _stop_calls():
    _CALLS.stopped = True
    _CALLS.wait()


def until_exit(function, nothing):
    """Return a function for TensorFlow's threads that ends before Python does.

    Args:
        function: callable that a dataset runs through `tf.numpy_function`.
        nothing: its result while Python exits, in the same dtypes.
    """
    # The last to be registered is the first to be run.
    atexit.unregister(_stop_calls)
    atexit.register(_stop_calls)

    @functools.wraps(function)
    def call(*arrays):
        with _CALLS:
            return nothing if _CALLS.stopped else function(*arrays)

    return call
