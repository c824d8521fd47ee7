"""Passes the inputs of a verb through a model, in batches of few shapes."""

import keras
import numpy as np

from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.preprocessor import shortened
from keras_bridgetower.preprocessing.verb_inputs import check_some


def in_batches(function, sources, batch_size, buckets=None, fill=True):
    """Run a function over sources, in batches of few distinct sizes.

    The last batch is filled up to a power of two, so that `function` is
    compiled for few shapes. Pictures of a batch are read when its turn comes,
    while an accelerator still computes the batch before.

    Args:
        function: callable, from a dict of features to arrays `(rows, ...)`.
        sources: list of `Features` and `Pictures`, of the same count or single.
        batch_size: int, rows of a batch.
        buckets: tuple of int or None, see `BridgeTowerPreprocessor`.
        fill: bool, whether rows may be added to a batch: not where an
            objective drew among its rows, of which they would be part.

    Yields:
        `(features, outputs)` of each batch: a dict of arrays, and NumPy
        arrays as the function returns them.

    Raises:
        ValueError: nothing is there, or `batch_size` is no integer from 1.
    """
    check_count("batch_size", batch_size)
    batch_size = int(batch_size)
    check_some(sources)
    count = max(source.count for source in sources)
    waiting = []
    for start in range(0, count, batch_size):
        rows = min(batch_size, count - start)
        size = min(batch_size, 1 << (rows - 1).bit_length()) if fill else rows
        features = {}
        for source in sources:
            features |= source.features(start, start + rows)
        if buckets is not None and "padding_mask" in features:
            features = shortened(features, buckets)
        made = function({k: filled(x, size) for k, x in features.items()})
        yield from _finished(waiting)
        waiting = [(features, made, rows)]
    yield from _finished(waiting)


def filled(x, size):
    """Rows up to a fixed number, the last one repeated."""
    if len(x) == size:
        return x
    more = np.broadcast_to(x[-1:], (size - len(x), *x.shape[1:]))
    return np.concatenate([x, more])


def joined(batches):
    """All outputs of `in_batches`."""
    outputs = [outputs for _, outputs in batches]
    return keras.tree.map_structure(lambda *x: np.concatenate(x), *outputs)


def _finished(waiting):
    for features, made, rows in waiting:
        yield features, _arrays(made, rows)


def _arrays(made, rows):
    return keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(x)[:rows], made
    )
