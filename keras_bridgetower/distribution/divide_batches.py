"""Rows of a global batch, and which replica gets them.

What has no rows, such as the number of the batch, goes to all of them.
"""

import keras

from keras_bridgetower.distribution import rows_of_process


def piece(batch, index, count):
    """One of `count` pieces of a batch, which differ by at most one row.

    Args:
        batch: nested structure of tensors `(rows, ...)` and scalars.
        index: int or scalar tensor, which piece, from 0.
        count: int, number of pieces.

    Returns:
        The structure, of tensors `(about rows / count, ...)`.

    Example:

    ```python
    piece({"x": tf.range(5)}, 1, 2)  # {"x": [2, 3, 4]}
    ```
    """
    import tensorflow as tf

    first = _with_rows(batch)[0]
    rows = first.shape[0]
    if rows is None:
        rows = tf.shape(first)[0]
    start, stop = index * rows // count, (index + 1) * rows // count
    return _cut(batch, start, stop)


def pieces_in_turn(dataset, first, number, count):
    """Pieces `first` to `first + number - 1` of each batch, one by one.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        first, number: ints.
        count: int, in how many pieces each batch is divided.

    Returns:
        `tf.data.Dataset`, of static shape where that of `dataset` is.
    """
    import tensorflow as tf

    def pieces(*batch):
        batch = batch if len(batch) > 1 else batch[0]
        indices = tf.data.Dataset.range(first, first + number)
        return indices.map(lambda i: piece(batch, tf.cast(i, tf.int32), count))

    divided = dataset.flat_map(pieces)
    known = int(dataset.cardinality())
    if known != tf.data.UNKNOWN_CARDINALITY:
        known = known * number if known > 0 else known
        divided = _of_length(divided, known)
    rows = static_rows(dataset)
    if rows is None or rows % count:
        return divided

    def with_shape(x):
        return tf.ensure_shape(x, (rows // count, *x.shape[1:]))

    return divided.map(
        lambda *batch: _of_rows(
            with_shape, batch if len(batch) > 1 else batch[0]
        )
    )


def own_pieces(dataset, index, count):
    """One piece of each batch, for a process that draws for it itself.

    The number of a batch, where it has one, becomes one of the piece: what
    is drawn by it is another in each process.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        index: int, which piece.
        count: int, in how many pieces each batch is divided.

    Returns:
        `tf.data.Dataset`, marked as divided.
    """

    def numbered(*batch):
        x = batch[0]
        if isinstance(x, dict) and "step" in x:
            x = {**x, "step": x["step"] * count + index}
        return (x, *batch[1:]) if len(batch) > 1 else x

    divided = pieces_in_turn(dataset, index, 1, count)
    return rows_of_process.marked(divided.map(numbered))


def static_rows(dataset):
    """Rows of each batch where the dataset says so, or None."""
    specs = _with_rows(dataset.element_spec)
    return specs[0].shape[0] if specs and specs[0].shape.rank else None


def check_training_batch(dataset, count):
    """Raise unless every batch can be divided among the replicas.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        count: int, number of replicas.

    Raises:
        ValueError: batches of unknown or indivisible size.
    """
    if count > 1:
        check_size(dataset, count)


def check_size(dataset, count):
    """Raise unless all batches have one size, which a number divides.

    Args:
        dataset: `tf.data.Dataset`, or another source of batches.
        count: int, number of replicas.

    Raises:
        ValueError: batches of unknown or indivisible size.
    """
    spec = getattr(dataset, "element_spec", type(dataset).__name__)
    rows = None if isinstance(spec, str) else static_rows(dataset)
    if rows is None:
        raise ValueError(
            "`dataset` must have batches of one known size to train on "
            f"{count} replicas. Use `Stream(remainder='drop')` or 'pad', or "
            "`batch(size, drop_remainder=True)` after `repeat()`, so that no "
            f"row is lost. Received: element_spec={spec}"
        )
    if rows % count:
        fit = sorted({rows // count * count, -(-rows // count) * count} - {0})
        raise ValueError(
            f"`dataset` must have batches that {count} replicas divide "
            f"evenly, such as of {' or '.join(map(str, fit))} rows. "
            f"Received: batches of {rows} rows"
        )


def only_divisible(dataset, count):
    """The same batches; an error at one that replicas cannot divide.

    Every process sees the same batches and so raises at the same one: none
    is left waiting for another.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        count: int, number of replicas.
    """
    import tensorflow as tf

    def checked(*batch):
        number = tf.shape(_with_rows(batch)[0])[0]
        check = tf.debugging.assert_equal(
            number % count,
            0,
            "Several processes on JAX need batches that all their devices "
            f"divide, here {count}. Evaluate such a number of rows, or in one "
            "process.",
        )
        with tf.control_dependencies([check]):
            batch = tf.nest.map_structure(tf.identity, batch)
        return batch if len(batch) > 1 else batch[0]

    return dataset.map(checked)


def without_short_end(dataset, count):
    """The same rows in the same order, and a row for every replica.

    Only the last batch can have fewer rows than there are replicas: it is
    joined with the one before, and both are divided anew.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        count: int, number of replicas.

    Returns:
        `tf.data.Dataset`.

    Raises:
        ValueError: the first batch has fewer rows than there are replicas.
    """
    import tensorflow as tf

    first = _number(next(iter(dataset)))
    if first < count:
        raise ValueError(
            f"`dataset` must have at least a row for each of {count} "
            "replicas in its first batch. Batch it in larger ones, or "
            f"evaluate on one device. Received: a batch of {first} rows"
        )

    def batches():
        held = None
        for batch in dataset:
            if held is not None and _number(batch) < count:
                batch = _joined(held, batch)
                # One row for each replica is left, if both are large enough.
                cut = max(0, _number(batch) - count)
                held = _cut(batch, 0, cut)
                if cut < count:
                    held, cut = None, 0
                batch = _cut(batch, cut, None)
            if held is not None:
                yield held
            held = batch
        yield held

    signature = _of_rows(
        lambda s: tf.TensorSpec((None, *s.shape[1:]), s.dtype),
        dataset.element_spec,
    )
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    known = int(dataset.cardinality())
    if known == tf.data.UNKNOWN_CARDINALITY:
        return made
    if first < 2 * count - 1:
        # So small that two may become one: counted in a pass of its own.
        end = sum(map(_number, dataset)) % first
        if 0 < end < count and first + end < 2 * count:
            known -= 1
    return _of_length(made, known)


def _of_length(dataset, number):
    import tensorflow as tf

    # Or Keras would warn at the end that data ran out.
    return dataset.apply(tf.data.experimental.assert_cardinality(number))


def _with_rows(batch):
    """The tensors of a batch that have rows, in a list."""
    return [x for x in keras.tree.flatten(batch) if x.shape.rank != 0]


def _of_rows(change, *batches):
    """Batches whose tensors with rows are changed, and scalars are not."""
    return keras.tree.map_structure(
        lambda *x: x[0] if x[0].shape.rank == 0 else change(*x), *batches
    )


def _number(batch):
    """Rows of an eager batch."""
    return len(_with_rows(batch)[0])


def _cut(batch, start, stop):
    return _of_rows(lambda x: x[start:stop], batch)


def _joined(first, second):
    import tensorflow as tf

    return _of_rows(lambda a, b: tf.concat([a, b], axis=0), first, second)
