"""Numbers and maps the batches of a `tf.data.Dataset` for `fit`."""

import os

import numpy as np

from keras_bridgetower.preprocessing.tf_graph import as_raised


def is_dataset(x):
    """Whether something is a `tf.data.Dataset`."""
    import tensorflow as tf

    return isinstance(x, tf.data.Dataset)


# Datasets that leave the labels of the one they read as they are.
_KEEP_LABELS = (
    "AssertCardinality",
    "Batch",
    "Cache",
    "Options",
    "ParallelBatch",
    "Prefetch",
    "Repeat",
    "Shard",
    "Shuffle",
    "Skip",
    "Take",
)


def labelled(dataset, names):
    """Return the dataset, with the names of the classes that it counts.

    Args:
        dataset: a `tf.data.Dataset`.
        names: list of str, in the order of the labels' ids or scores, or None
            where labels are no classes.

    Example:

    ```python
    dataset = labelled(tf.data.Dataset.range(2), ["no", "yes"])
    ```
    """
    dataset.keras_bridgetower_labels = names
    return dataset


def labels_of(dataset):
    """Return the names that `labelled` has set, or None if they are unknown.

    Args:
        dataset: a `tf.data.Dataset`. Other libraries' data have no names, nor
            has what `map` returns, which may change labels.

    Example:

    ```python
    data = labelled(tf.data.Dataset.range(2), ["no", "yes"])
    labels_of(data.take(1))  # ["no", "yes"]
    ```
    """
    while not hasattr(dataset, "keras_bridgetower_labels"):
        kind = type(dataset).__name__.strip("_").removesuffix("Dataset")
        if kind not in _KEEP_LABELS:
            return None
        dataset = getattr(dataset, "_input_dataset", None)
    return dataset.keras_bridgetower_labels


def untuned(dataset):
    """The same dataset, run without TensorFlow's tuning of it.

    The tuning thread sleeps ever longer between two looks. Ending a dataset
    often waits until it wakes: for as long again as the dataset was read
    (seen in TensorFlow 2.21). What would be tuned takes all cores instead.

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
    """Apply a function to each batch, to several batches at a time.

    One batch for each core is in work, and two finished ones wait. Left to
    itself, TensorFlow doubles the latter whenever the model is faster, without
    an end.

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
