"""Closes TensorFlow's dataset iterators after an error and at exit."""

import atexit
import contextlib
import gc

from keras_bridgetower.backend.keras_private.training import forget_evaluation

# Whose finished frames are emptied. A debugger still finds the values in
# those of the user's own functions.
_EMPTIED = ("keras", "tensorflow", "torch", "keras_bridgetower")


@contextlib.contextmanager
def closed_on_error(model):
    """A context in which an error ends all reading of datasets.

    An error keeps the frames alive that it passed, and so the iterator of a
    dataset, whose threads call Python. If the iterator lives until the
    interpreter ends, it waits for these threads, which Python no longer
    serves, and the process never ends.

    Args:
        model: the `keras.Model` whose pass over a dataset this is.

    Example:

    ```python
    with closed_on_error(model):
        keras.Model.fit(model, dataset)
    ```
    """
    try:
        yield
    except BaseException as error:
        forget_evaluation(model)
        _empty_frames(error)
        # Iterators of Keras are part of cycles.
        gc.collect()
        raise


def _empty_frames(error):
    seen = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        waiting += [error.__cause__, error.__context__]
        step = error.__traceback__
        while step is not None:
            _empty_from(step.tb_frame)
            step = step.tb_next


def _empty_from(frame):
    """Empty a frame and its callers, up to the first that still runs.

    Keras takes its own frames out of a traceback, but not out of this chain.
    """
    while frame is not None:
        caller = frame.f_back
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in _EMPTIED:
            try:
                frame.clear()
            except RuntimeError:
                return  # It runs, as do all that called it.
        frame = caller


def close_at_exit():
    """Release iterators that are left when the process ends.

    One in a module or in the frames of an error would only die with the
    interpreter, see `closed_on_error`.
    """
    atexit.unregister(_close_iterators)
    atexit.register(_close_iterators)


def _close_iterators():
    # TensorFlow has no public way to end one, which ends when nothing holds
    # its parts.
    import tensorflow as tf

    for held in gc.get_objects():
        # `isinstance` would ask objects that are dying by now.
        if tf.data.Iterator in type(held).__mro__:
            vars(held).clear()
