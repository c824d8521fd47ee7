"""Makes, numbers and maps the batches of a `tf.data.Dataset` for `fit`."""

import collections.abc
import io
import os

import numpy as np
from keras import ops

from keras_bridgetower.cores import usable_cores
from keras_bridgetower.distribution.divide_batches import is_dataset
from keras_bridgetower.preprocessing.images import SINGLE
from keras_bridgetower.preprocessing.images import check_signature
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.tf_graph import check_errors
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor
from keras_bridgetower.preprocessing.tf_graph import returned_errors
from keras_bridgetower.preprocessing.tf_graph import static_shape

# Datasets that do not change labels.
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
    """Return the dataset, with the names of its classes.

    Args:
        dataset: a `tf.data.Dataset`.
        names: list of str, in the order of the labels' ids or scores, or None
            if labels are not classes.
    """
    dataset.keras_bridgetower_labels = names
    return dataset


def label_names(dataset):
    """Return the names that `labelled` has set, or None if they are unknown.

    Data of other libraries have none, nor has the result of `map`, which may
    change labels.
    """
    while not hasattr(dataset, "keras_bridgetower_labels"):
        kind = type(dataset).__name__.strip("_").removesuffix("Dataset")
        if kind not in _KEEP_LABELS:
            return None
        dataset = getattr(dataset, "_input_dataset", None)
    return dataset.keras_bridgetower_labels


def untuned(dataset):
    """Return the dataset with TensorFlow's tuning disabled.

    The tuning thread sleeps for longer and longer times. Closing a dataset
    waits for it: often as long again as the dataset was read (seen in
    TensorFlow 2.21). Values that would be tuned are set to the number of cores.
    The dataset is unchanged if its owner has set `options().autotune`, or if it
    is not a `tf.data.Dataset`.
    """
    if not is_dataset(dataset):
        return dataset
    import tensorflow as tf

    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = usable_cores()
    return dataset.with_options(options)


def numbered(dataset, first=lambda: 0, own=lambda number: number):
    """Add its number to each batch as `x["step"]`.

    Preprocessing runs in parallel, so its draws must not depend on the order in
    which batches arrive.

    Args:
        dataset: `tf.data.Dataset` of `x`, `(x, y)` or
            `(x, y, sample_weight)`, batched.
        first: callable that returns an int, the number of the first batch. It
            is called whenever the dataset is read from its start.
        own: callable from the number of a batch to the one that it gets.

    Returns:
        `tf.data.Dataset`; unchanged if `x` is not a dict, or has a step.
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

    One batch for each core is in work, and two finished ones wait. By default
    TensorFlow doubles the latter whenever the model is faster, without a limit.

    Args:
        dataset: `tf.data.Dataset`.
        function: callable that takes the parts of a batch.

    Returns:
        `tf.data.Dataset`, in the same order, `untuned`. Its attribute
        `keras_bridgetower_errors` is a dataset of `(batch, errors)`, for
        callers that raise the errors themselves.
    """
    import tensorflow as tf

    # AutoGraph would add the whole stack of files to an error.
    plain = tf.autograph.experimental.do_not_convert
    pairs = dataset.map(
        plain(returned_errors(function)), num_parallel_calls=tf.data.AUTOTUNE
    )
    pairs = untuned(pairs.prefetch(2))
    batches = pairs.map(plain(check_errors))
    batches.keras_bridgetower_errors = pairs
    return batches


def make_batches(x, y, sample_weight, batch_size, order=None, least=1):
    """Return arrays and lists as a `tf.data.Dataset` of batches.

    Args:
        x: dict of arrays and lists, a row for each sample.
        y, sample_weight: array, list or dict of these, or None.
        batch_size: int.
        order: callable that returns an int array, the order of the rows. It
            is called whenever the dataset is read from its start. None:
            unchanged.
        least: int, 0 if no rows are allowed, otherwise 1.

    Raises:
        ValueError: values that are not arrays, or have different numbers of
            rows.
    """
    import tensorflow as tf

    given = {"x": x, "y": y, "sample_weight": sample_weight}
    given = {k: _tensors(k, v) for k, v in given.items() if v is not None}
    rows = {name: len(value) for name, value in _leaves("", given)}
    count = min(rows.values())
    if count != max(rows.values()) or count < least:
        raise ValueError(
            "`x`, `y` and `sample_weight` must have one row for each sample, "
            f"at least one sample. Received: rows={rows}"
        )
    # If the last batch is whole, all batches have a known size.
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


def split_rows(values, count):
    """Split arrays and lists, or dicts of them, into `(first, others)` rows."""
    if values is None:
        return None, None
    first = _mapped(lambda rows: rows[:count], values)
    return first, _mapped(lambda rows: rows[count:], values)


def count_rows(x):
    """Return the number of rows of the first array or list."""
    name, first = next(_leaves("x", x))
    if not hasattr(first, "__len__"):
        raise _not_several(name, first)
    return len(first)


def _not_several(name, value):
    return ValueError(
        f"`{name}` must hold several samples. Received: {value!r:.100}"
    )


def _mapped(function, values):
    """Apply a function to each array; lists and tuples count as arrays."""
    if isinstance(values, dict):
        return {k: _mapped(function, v) for k, v in values.items()}
    return function(values)


def _leaves(name, values):
    """Yield the arrays with their names."""
    if not isinstance(values, dict):
        yield name, values
        return
    for key, value in values.items():
        yield from _leaves(f"{name}[{key!r}]" if name else key, value)


def _tensors(name, values):
    """Convert arrays and lists to TensorFlow's tensors of at least one axis."""
    if isinstance(values, dict):
        return {k: _tensors(f"{name}[{k!r}]", v) for k, v in values.items()}
    import tensorflow as tf

    if isinstance(values, (tf.Tensor, tf.RaggedTensor)):
        made = values
    else:
        if hasattr(values, "__array__"):
            values = ops.convert_to_numpy(values)
            # Objects of one type, as in a column of a table.
            values = values.tolist() if values.dtype == object else values
        # An empty list is treated as one of paths or texts.
        kind = tf.string if isinstance(values, list) and not values else None
        made = tf.convert_to_tensor(values, kind)
    if not made.shape.rank:
        raise _not_several(name, values)
    return made


def sliceable(x):
    """Convert pictures to a form that TensorFlow slices into rows.

    TensorFlow slices arrays of one shape, and strings, which may be bytes or
    paths. So bytes that are not a picture are rejected here. Other kinds of
    pictures become image files in memory, without loss.

    Args:
        x: the input of `fit`, `evaluate` or `predict`.

    Returns:
        `x`; of a dict with lists of `"images"` a copy with lists of strings,
        bytes or arrays of one shape.

    Raises:
        ValueError: a picture that cannot be read, or a path without a file.
            The error names its row.
    """
    if not isinstance(x, dict) or "images" not in x:
        return x
    images = _column(x["images"])
    if not isinstance(images, (list, tuple)):
        return x
    pictures = []
    _nested(images, lambda picture, _: pictures.append(picture))
    arrays = not any(isinstance(picture, SINGLE) for picture in pictures)
    if arrays and len({static_shape(picture) for picture in pictures}) == 1:
        # TensorFlow would read a tuple as several inputs.
        return {**x, "images": _nested(images, _pixels)}
    return {**x, "images": _nested(images, _stored)}


def _column(images):
    """Return pictures in a column of a table or an array as a list."""
    if isinstance(images, (str, bytes, list, tuple)):
        return images
    # Columns of `datasets` read each row on access.
    if isinstance(images, collections.abc.Sequence):
        return list(images)
    tensor = ops.is_tensor(images) or is_string_tensor(images)
    if not tensor and hasattr(images, "__array__"):
        array = np.asarray(images)
        return array.tolist() if array.dtype.kind in "OSU" else array
    return images


def _nested(images, function, name="images"):
    """Apply a function to each picture in nested lists."""
    # A pair of pictures may be one array.
    several = not isinstance(images, SINGLE) and (
        isinstance(images, (list, tuple)) or len(static_shape(images)) == 4
    )
    if not several:
        return function(images, name)
    named = ((image, f"{name}[{i}]") for i, image in enumerate(images))
    return [_nested(image, function, name) for image, name in named]


def _pixels(image, name):
    # TensorFlow does not convert tensors of other libraries.
    return ops.convert_to_numpy(image) if ops.is_tensor(image) else image


def _stored(image, name):
    if isinstance(image, (str, os.PathLike)):
        path = os.fsdecode(image)
        try:
            os.stat(path)
        except (OSError, ValueError):
            # Raises an error that names the row, before batches are made.
            open_image(path, name)
        return path
    if isinstance(image, (bytes, bytearray, memoryview)):
        check_signature(bytes(image), name)
        return bytes(image)
    file = io.BytesIO()
    # PPM is not compressed.
    open_image(image, name).save(file, "PPM")
    return file.getvalue()
