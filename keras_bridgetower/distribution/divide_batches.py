"""Divides global batches among replicas, and marks divided data.

Scalars of a batch, such as its number, go to all replicas. The share of one
process is marked by an option of TensorFlow: its `auto_shard_policy` is OFF.
`map` and other transformations keep the option, so no dataset is divided twice.
Another option marks datasets that a strategy has returned.
"""

import keras

# Value of the option of datasets that a strategy has returned.
_READY = "keras_bridgetower"


def piece(batch, index, count):
    """Return one of `count` pieces of a batch; sizes differ by at most 1.

    Args:
        batch: nested structure of tensors `(batch, ...)` and scalars.
        index: int or scalar tensor, number of the piece, from 0.
        count: int, number of pieces.

    Returns:
        The structure with tensors `(about batch / count, ...)`.

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
    return _slice_rows(batch, start, stop)


def pieces_in_turn(dataset, first, number, count):
    """Return a dataset of some pieces of each batch, each as a batch.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        first: int, the first piece to take of each batch.
        number: int, number of pieces to take of each batch.
        count: int, number of pieces into which each batch is divided.

    Returns:
        `tf.data.Dataset`. Its shapes are static if those of `dataset` are.
    """
    import tensorflow as tf

    def pieces(*batch):
        batch = _element(batch)
        indices = tf.data.Dataset.range(first, first + number)
        return indices.map(lambda i: piece(batch, tf.cast(i, tf.int32), count))

    divided = dataset.flat_map(pieces)
    known = int(dataset.cardinality())
    if known != tf.data.UNKNOWN_CARDINALITY:
        known = known * number if known > 0 else known
        divided = _with_length(divided, known)
    rows = static_rows(dataset)
    if rows is None or rows % count:
        return divided

    def with_shape(x):
        return tf.ensure_shape(x, (rows // count, *x.shape[1:]))

    return divided.map(lambda *batch: _map_rows(with_shape, _element(batch)))


def own_pieces(dataset, index, count):
    """Return a dataset of the piece of each batch that one process reads.

    If a batch has a number (`step`), which seeds random values, the piece gets
    another one, so that each process draws different values.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        index: int, number of the process, and so of the piece.
        count: int, number of pieces into which each batch is divided.

    Returns:
        `tf.data.Dataset`, marked as divided.
    """

    def numbered(*batch):
        x = batch[0]
        if isinstance(x, dict) and "step" in x:
            x = {**x, "step": x["step"] * count + index}
        return _element((x, *batch[1:]))

    import tensorflow as tf

    divided = pieces_in_turn(dataset, index, 1, count).map(numbered)
    options = tf.data.Options()
    policies = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policies.OFF
    return divided.with_options(options)


def static_rows(dataset):
    """Return the batch size if it is static in the dataset, or None."""
    specs = _with_rows(dataset.element_spec)
    return specs[0].shape[0] if specs and specs[0].shape.rank else None


def check_size(dataset, count):
    """Raise unless all batches have one size, and `count` divides it.

    Args:
        dataset: `tf.data.Dataset`, or another source of batches.
        count: int, number of replicas.

    Raises:
        ValueError: the size of batches is unknown or cannot be divided.
    """
    spec = getattr(dataset, "element_spec", type(dataset).__name__)
    rows = None if isinstance(spec, str) else static_rows(dataset)
    if rows is None:
        raise ValueError(
            "`dataset` must have batches of one known size: use "
            "`drop_remainder=True`, or for arrays a `batch_size` that divides "
            f"the rows. Received: element_spec={spec}"
        )
    if rows % count:
        raise ValueError(
            f"`dataset` must have batches that {count} replicas divide "
            f"evenly. Received: batches of {rows} rows"
        )


def only_divisible(dataset, count):
    """Return the dataset, raising at a batch that cannot be divided evenly.

    All processes raise at the same batch, so none waits forever for another.

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
            f"Processes of JAX need batches that {count} devices divide.",
        )
        with tf.control_dependencies([check]):
            return _element(_map_rows(tf.identity, batch))

    return dataset.map(checked)


def without_short_end(dataset, count):
    """Return the same samples with at least one per replica in each batch.

    Only the last batch can have fewer samples than there are replicas. It is
    joined with the batch before, and the result is divided again.

    Args:
        dataset: `tf.data.Dataset` of global batches.
        count: int, number of replicas.

    Returns:
        `tf.data.Dataset`.

    Raises:
        ValueError: the first batch has fewer samples than there are replicas.
    """
    import tensorflow as tf

    first = _batch_size(next(iter(dataset)))
    if first < count:
        raise ValueError(
            f"`dataset` must have {count} rows in its batches, one for each "
            f"replica. Received: a batch of {first} rows"
        )

    def batches():
        last = None
        for batch in dataset:
            if last is not None and _batch_size(batch) < count:
                batch = _map_rows(
                    lambda a, b: tf.concat([a, b], axis=0), last, batch
                )
                # Leave one sample for each replica in the last batch, if the
                # first part keeps enough.
                cut = max(0, _batch_size(batch) - count)
                last = _slice_rows(batch, 0, cut)
                if cut < count:
                    last, cut = None, 0
                batch = _slice_rows(batch, cut, None)
            if last is not None:
                yield last
            last = batch
        yield last

    signature = _map_rows(
        lambda s: tf.TensorSpec((None, *s.shape[1:]), s.dtype),
        dataset.element_spec,
    )
    rebatched = tf.data.Dataset.from_generator(
        batches, output_signature=signature
    )
    known = int(dataset.cardinality())
    if known == tf.data.UNKNOWN_CARDINALITY:
        return rebatched
    if first < 2 * count - 1:
        # The last two batches may have become one. To know, count the samples.
        end = sum(map(_batch_size, dataset)) % first
        known -= 0 < end < count and first + end < 2 * count
    return _with_length(rebatched, known)


def _element(arguments):
    """Return the element of a dataset, whose `map` unpacks tuples."""
    return arguments if len(arguments) > 1 else arguments[0]


def _with_length(dataset, number):
    import tensorflow as tf

    # Keras would warn at the end of a dataset of unknown length.
    return dataset.apply(tf.data.experimental.assert_cardinality(number))


def _with_rows(batch):
    """Return the tensors of a batch that are not scalars, in a list."""
    return [x for x in keras.tree.flatten(batch) if _has_rows(x)]


def _has_rows(x):
    # In a batch with weights but no labels, the labels are None.
    return getattr(x, "shape", None) is not None and x.shape.rank != 0


def _map_rows(change, *batches):
    """Apply `change` to all tensors of batches that are not scalars."""
    return keras.tree.map_structure(
        lambda *x: change(*x) if _has_rows(x[0]) else x[0], *batches
    )


def _batch_size(batch):
    """Return the size of an eager batch."""
    return len(_with_rows(batch)[0])


def _slice_rows(batch, start, stop):
    return _map_rows(lambda x: x[start:stop], batch)


def is_dataset(source):
    """Return True if something is a `tf.data.Dataset`."""
    import tensorflow as tf

    return isinstance(source, tf.data.Dataset)


def is_divided(dataset):
    """Return True if a dataset is marked as the share of one process."""
    import tensorflow as tf

    if not is_dataset(dataset):
        return False
    policy = dataset.options().experimental_distribute.auto_shard_policy
    return policy == tf.data.experimental.AutoShardPolicy.OFF


def ready(dataset):
    """Return the same dataset, marked as one that a strategy has returned."""
    import tensorflow as tf

    options = tf.data.Options()
    options.framework_type = [_READY]
    return dataset.with_options(options)


def is_ready(source):
    """Return True if data are divided, or a strategy has returned them."""
    if not is_dataset(source):
        return False
    marks = source.options().framework_type or ()
    return is_divided(source) or _READY in marks
