"""Preprocesses the batches of a `PyDataset`, `DataLoader` or generator.

They stay what they are for Keras: a `PyDataset` keeps its length, its workers
and its epochs, a generator is read once.
"""

import collections.abc

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.training import read_again

_KINDS = (
    "`x` must be a dict of arrays or lists, one row for each sample, such as "
    "`{'images': [...], 'text': [...]}`, or batches of these: a "
    "`tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader` or a "
    "Python generator."
)
_ROWS = (
    " Of rows make columns, such as "
    "`{'images': [row['image'] for row in rows], 'text': [...]}`."
)
_TABLE = (
    " Of a table take columns, such as "
    "`{'images': table['path'], 'text': table['question']}`."
)
_SWAPPED = " `x` and `y` are swapped."


def check_source(source, y=None):
    """Refuse rows, arrays and tables, which are no batches.

    Args:
        source: what was given as `x`.
        y: what was given as `y`.

    Raises:
        ValueError: it says what to pass instead.
    """
    values = (str, bytes, list, tuple, collections.abc.Mapping)
    if (
        isinstance(source, collections.abc.Iterable)
        and not isinstance(source, values)
        and not hasattr(source, "__array__")
    ):
        return
    rows = isinstance(source, (list, tuple)) and source
    if isinstance(y, dict):
        hint = _SWAPPED
    elif rows and isinstance(source[0], dict):
        hint = _ROWS
    else:
        table = hasattr(source, "columns") or hasattr(source, "column_names")
        hint = _TABLE if table else ""
    kind = type(source).__name__
    raise ValueError(f"{_KINDS}{hint} Received: x of type {kind}")


def prepared(source, prepare, first):
    """A source whose batches are prepared when they are read.

    Args:
        source: a `keras.utils.PyDataset`, an iterator, or what can be
            iterated over again, such as a torch `DataLoader`; of batches `x`,
            `(x, y)` or `(x, y, sample_weight)`.
        prepare: callable that takes `x`, `y`, `sample_weight` and the number
            of the batch, and returns what Keras takes of a batch.
        first: callable that returns the number of the first batch.

    Returns:
        A `keras.utils.PyDataset`, or what Keras takes of no known length.
    """
    if isinstance(source, keras.utils.PyDataset):
        return _Prepared(source, prepare, first)
    if isinstance(source, collections.abc.Sized):
        try:
            return _Prepared(_InOrder(source), prepare, first)
        except TypeError:
            # That of a torch `DataLoader` may say that it is not known.
            pass
    if is_read_once(source):
        return _each(source, prepare, first)
    return read_again(lambda: _each(source, prepare, first))


def is_read_once(source):
    """Whether something is an iterator, such as a Python generator."""
    return isinstance(source, collections.abc.Iterator)


class _Prepared(keras.utils.PyDataset):
    """Batches of another `PyDataset`."""

    def __init__(self, source, prepare, first):
        super().__init__(
            workers=source.workers,
            use_multiprocessing=source.use_multiprocessing,
            max_queue_size=source.max_queue_size,
        )
        self._source, self._prepare, self._first = source, prepare, first

    @property
    def num_batches(self):
        return self._source.num_batches

    def __getitem__(self, index):
        batch = self._source[index]
        return _prepare_batch(self._prepare, batch, self._first() + index)

    def on_epoch_begin(self):
        self._source.on_epoch_begin()

    def on_epoch_end(self):
        self._source.on_epoch_end()


class _InOrder(keras.utils.PyDataset):
    """Batches of what can be iterated over from its start again and again.

    Keras asks for one batch after the other; for the first one it starts anew.
    """

    def __init__(self, source):
        super().__init__()
        self._source, self._count = source, len(source)
        self._batches = None

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        if index == 0:
            self._batches = iter(self._source)
        return next(self._batches)


def _each(source, prepare, first):
    for number, batch in enumerate(source, first()):
        yield _prepare_batch(prepare, batch, number)


def _prepare_batch(prepare, batch, number):
    parts = keras.utils.unpack_x_y_sample_weight(batch)
    made = prepare(*parts, number)
    # Tensors of another library than the backend's are none to Keras.
    made = keras.tree.map_structure(
        lambda x: None if x is None else np.asarray(x), made
    )
    return made if isinstance(made, tuple) else (made,)
