"""Datasets of batches: made of arrays, numbered, and read untuned."""

import os

import numpy as np
from keras import ops

from keras_bridgetower.preprocessing.tf_graph import as_raised


def is_dataset(x):
    """Whether something is a `tf.data.Dataset`."""
    import tensorflow as tf

    return isinstance(x, tf.data.Dataset)


def untuned(dataset):
    """The same dataset, run without TensorFlow's tuning of it.

    Its thread sleeps ever longer between two looks, and to end a dataset often
    waits for the next one: for as long again as the dataset was read (seen in
    TensorFlow 2.21). What would be tuned takes all cores instead.

    Args:
        dataset: a `tf.data.Dataset`, or whatever else a model reads.

    Returns:
        The dataset, with `options().autotune` set; as it was where its owner
        has set it, or where it is no `tf.data.Dataset`.

    Example:

    ```python
    dataset = untuned(tf.data.Dataset.range(3))
    ```
    """
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        return dataset
    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = os.cpu_count()
    return dataset.with_options(options)


def numbered(dataset, first=lambda: 0, own=lambda number: number):
    """The same batches, each with its number as `x["step"]`.

    Preprocessing runs in parallel, so what it draws may not depend on which
    batch comes to it first.

    Args:
        dataset: `tf.data.Dataset` of `x`, `(x, y)` or
            `(x, y, sample_weight)`, batched.
        first: callable that returns an int, the number of the first batch. It
            is asked whenever the dataset is read from its start.
        own: callable of the number of a batch, which returns the one that it
            gets.

    Returns:
        `tf.data.Dataset`; as it was where `x` is no dict, or has a step.

    Example:

    ```python
    data = tf.data.Dataset.from_tensor_slices({"text": ["a", "b", "c"]})
    [int(x["step"]) for x in numbered(data.batch(2))]  # 0, 1
    ```
    """
    import tensorflow as tf

    spec = dataset.element_spec
    x = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(x, dict) or "step" in x:
        return dataset

    def ask():
        return tf.numpy_function(lambda: np.int64(first()), [], tf.int64)

    def count(start, place):
        start = tf.cond(place == 0, ask, lambda: start)
        start.set_shape(())
        return start, start + place

    def add(number, batch):
        number = own(number)
        if not isinstance(batch, tuple):
            return {**batch, "step": number}
        return {**batch[0], "step": number}, *batch[1:]

    start = np.int64(0)
    numbers = tf.data.Dataset.counter().scan(start, count)
    return tf.data.Dataset.zip(numbers, dataset).map(add)


def mapped(dataset, function):
    """A function of each batch, of several at a time while a model is at one.

    One for each core is made at a time, and two wait: TensorFlow's own number
    of those doubles whenever a model is faster, without an end.

    Args:
        dataset: `tf.data.Dataset`.
        function: callable that takes the parts of a batch.

    Returns:
        `tf.data.Dataset`, in the same order.
    """
    import tensorflow as tf

    with as_raised():
        made = dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
    return made.prefetch(2)


def batches_of(x, y, sample_weight, batch_size, order=None):
    """Arrays and lists as a dataset of batches.

    Args:
        x: dict of arrays and lists, a row for each sample.
        y: array, list or dict of these, or None.
        sample_weight: likewise.
        batch_size: int.
        order: callable that returns an int array, the places of the rows in
            the order in which they are read. It is asked whenever the dataset
            is read from its start. None: as they stand.

    Returns:
        `tf.data.Dataset` of `x`, `(x, y)` or `(x, y, sample_weight)`.

    Raises:
        ValueError: what is no array, or has another number of rows.
    """
    import tensorflow as tf

    given = {"x": x, "y": y, "sample_weight": sample_weight}
    given = {k: _tensors(k, v) for k, v in given.items() if v is not None}
    rows = {name: len(value) for name, value in _leaves("", given)}
    count = min(rows.values())
    if count != max(rows.values()) or not count:
        raise ValueError(
            "`x`, `y` and `sample_weight` must have one row for each sample, "
            f"and at least one sample. Received: rows={rows}"
        )
    # Where the last batch is whole, all are known to be of one size.
    whole = {"drop_remainder": count % batch_size == 0}
    if order is None:
        data = tf.data.Dataset.from_tensor_slices(given)
        data = data.batch(batch_size, **whole)
    else:

        def ordered(_):
            places = tf.numpy_function(order, [], tf.int64)
            places.set_shape((count,))
            return tf.data.Dataset.from_tensor_slices(places)

        places = tf.data.Dataset.range(1).flat_map(ordered)
        places = places.apply(tf.data.experimental.assert_cardinality(count))
        data = places.batch(batch_size, **whole).map(
            lambda rows: _mapped(lambda t: tf.gather(t, rows), given)
        )
    if set(given) == {"x"}:
        return data.map(lambda given: given["x"])
    names = ("x", "y", "sample_weight")[: 2 + ("sample_weight" in given)]
    return data.map(lambda given: tuple(given.get(name) for name in names))


def parts_of(values, count):
    """The first rows of arrays and lists, and the others.

    Args:
        values: array, list, or dicts and tuples of these; or None.
        count: int, how many are the first.

    Returns:
        `(first, others)`, each as `values`.
    """
    if values is None:
        return None, None
    first = _mapped(lambda rows: rows[:count], values)
    return first, _mapped(lambda rows: rows[count:], values)


def rows_of(x):
    """How many rows the first of some arrays and lists has."""
    name, first = next(_leaves("x", x))
    if not hasattr(first, "__len__"):
        raise _not_several(name, first)
    return len(first)


def _not_several(name, value):
    return ValueError(
        f"`{name}` must hold several samples, each a row of a list or an "
        f"array. Received: {name} with {value!r:.100}"
    )


def _mapped(function, values):
    """A function of each array; lists and tuples stand for arrays."""
    if isinstance(values, dict):
        return {k: _mapped(function, v) for k, v in values.items()}
    return function(values)


def _leaves(name, values):
    """The arrays with their names."""
    if not isinstance(values, dict):
        yield name, values
        return
    for key, value in values.items():
        yield from _leaves(f"{name}[{key!r}]" if name else key, value)


def _tensors(name, values):
    """TensorFlow's tensors of arrays and lists, of at least one axis."""
    if isinstance(values, dict):
        return {k: _tensors(f"{name}[{k!r}]", v) for k, v in values.items()}
    import tensorflow as tf

    def tensor(value):
        if isinstance(value, (tf.Tensor, tf.RaggedTensor)):
            return value
        if hasattr(value, "__array__"):
            value = ops.convert_to_numpy(value)
            # Objects of one type, as a column of a table holds them.
            value = value.tolist() if value.dtype == object else value
        return tf.convert_to_tensor(value)

    try:
        made = tensor(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must hold arrays, or lists whose rows have one shape "
            "and type, such as paths and strings. Received: "
            f"{name} with {type(values).__name__} {values!r:.100}"
        ) from error
    if not made.shape.rank:
        raise _not_several(name, values)
    return made
