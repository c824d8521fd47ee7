"""Checks that batches have the inputs, labels and shapes that a task needs."""

import itertools

import keras

from keras_bridgetower.backend import devices
from keras_bridgetower.preprocessing.geometry import leaves_as_is
from keras_bridgetower.preprocessing.tf_datasets import labels_of
from keras_bridgetower.preprocessing.tf_graph import shape_of_rows
from keras_bridgetower.tasks.fit.value_checks import check_names


def check_batches(task, data, **checked):
    """Refuse a dataset of single samples, or without the task's labels.

    Args:
        task: the task.
        data: a `tf.data.Dataset`.
        **checked: as `check_batch`.

    Raises:
        ValueError: what is missing, or labels of other classes.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    x = x if isinstance(x, dict) else {}
    shapes = {
        name: None if spec.shape.rank is None else tuple(spec.shape)
        for name, spec in x.items()
    }
    check_batch(task, shapes, y is None, **checked)
    _check_frame(task, shapes)
    names = labels_of(data)
    if names is not None and checked.get("labelled", True):
        check_classes(task, names)


def check_classes(task, labels):
    """Reject records whose labels are not the classes of a task.

    Args:
        task: a task.
        labels: list of str, the names of the records' labels, in the order of
            their ids and scores.

    Raises:
        ValueError: other classes than the task's, or in another order.
    """
    names = task.class_names
    if names is not None and list(names) != list(labels):
        pairs = itertools.zip_longest(names, labels)
        place, (name, label) = next(
            (i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]
        )
        raise ValueError(
            "The records must have the classes of the task, in the same "
            "order: their ids and scores would mean others. Build the records "
            "with those of the task (for your own tables `--set labels=A,B`), "
            "or make the task with the labels of the stream, "
            f"`stream.labels`. Received: {len(labels)} labels, for "
            f"{len(names)} classes; number {place} is {label!r} for the "
            f"records and {name!r} for the task"
        )


def _check_frame(task, shapes):
    """Refuse a stream's pictures that would shrink into a black frame.

    A picture of the user's own may have one, as in `transformers`; what a
    stream gives, which `step` tells, was made a square for the model.
    """
    converter = getattr(task.preprocessor, "image_converter", None)
    if converter is None or "step" not in shapes:
        return
    side = converter.image_size
    made = (shapes.get("images") or ())[-3:] == (side, side, 3)
    if made and not leaves_as_is(side, converter.mode, converter.size_divisor):
        raise ValueError(
            "The stream's `transform` makes squares of the model's size, and "
            f"the preprocessor's image converter would shrink them into a "
            f"black frame: {side} px are no multiple of its size_divisor. "
            "Open the task with image_mode='squash' or 'crop', as the "
            f"transform does. Received: mode={converter.mode!r}, "
            f"size_divisor={converter.size_divisor}"
        )


def check_partners(task, x):
    """Refuse to train on pairs where a process has one row of a batch.

    A preprocessor pairs the rows that it sees: with one of them every label
    would be "match".

    Args:
        task: the task.
        x: the `tf.data.Dataset` that it is trained on.

    Raises:
        ValueError: one row of a batch in each of several processes.
    """
    processes = devices.current().processes
    pairs = getattr(task.preprocessor, "pairs_rows", False)
    if processes == 1 or not pairs:
        return
    rows = keras.tree.flatten(x.element_spec)
    sizes = {spec.shape[0] for spec in rows if spec.shape.rank}
    if sizes == {1}:
        raise ValueError(
            "A batch must have at least two rows for each process: the "
            "preprocessor pairs the rows that it sees. Use a larger batch, or "
            f"fewer processes. Received: one row in each of {processes} "
            "processes"
        )


def check_place_of(name, value, kinds):
    """Refuse a value that was meant for another argument.

    KerasHub's tasks take `sample_weight` at this place, Keras' models do not.

    Args:
        name: str, the argument.
        value: what was given for it.
        kinds: type or types of which it must be.

    Raises:
        ValueError: another type.
    """
    if not isinstance(value, kinds):
        raise ValueError(
            f"`{name}` must be as `keras.Model` takes it, and arguments come "
            "in that order: pass those that follow `batch_size` by their "
            f"names. Received: {name} of type {type(value).__name__}"
        )


def check_arrays(task, x, y, **checked):
    """As `check_batches`, of one batch of arrays and lists."""
    if isinstance(x, dict):
        shapes = {name: shape_of_rows(rows) for name, rows in x.items()}
        check_batch(task, shapes, y is None, **checked)


def check_lists_of_pictures(task, x):
    """Refuse a batch in which samples and their pictures may be confused.

    If each sample is a list of two pictures, a `DataLoader` makes two lists of
    them, with one picture of every sample each. For two samples that has the
    same shape as two lists of two pictures.
    """
    count = getattr(task.preprocessor, "pictures", ())
    images = x.get("images")
    if not count or not isinstance(images, (list, tuple)):
        return
    alike = (len(images), len(x.get("text", ()))) == 2 * count
    if alike and not all(isinstance(row, list) for row in images):
        raise ValueError(
            "`images` of a batch must be an array, or a list of a list for "
            "each sample. A torch `DataLoader` and grain make other batches of "
            "lists, so let a sample hold its pictures as one array. Received: "
            f"images with rows of type {type(images[0]).__name__}"
        )


def check_batch(task, shapes, unlabelled, labelled=True, class_weight=None):
    """Refuse a batch that is a single sample, or without the task's labels.

    Args:
        task: the task.
        shapes: dict from the names of the inputs to their shapes, None where
            their number of axes is not known.
        unlabelled: bool, whether labels are missing.
        labelled: bool, whether they must be there.
        class_weight: dict from class ids to weights, or None.

    Raises:
        ValueError: what is missing.
    """
    if task.preprocessor is None and shapes:
        check_names(task, shapes)
    for name, shape in shapes.items():
        if shape is not None and _is_single(task, name, len(shape), shapes):
            raise ValueError(
                "`x` must hold batches. Batch it, as by `dataset.batch(32)`, "
                "or put the sample into lists of one. Received: "
                f"{name} of shape {shape}"
            )
    if labelled and unlabelled and task.label_words() is not None:
        raise ValueError(
            f"`y` must hold {task.label_words()}; batches are `(x, y)`. "
            "Received: y=None"
        )
    if class_weight is not None:
        _check_class_weight(task, class_weight)


def _is_single(task, name, rank, names):
    """Whether a feature lacks the axis of the batch."""
    if task.preprocessor is None:
        known = task.input.get(name)
        return known is not None and rank < len(known.shape)
    if name in ("text", "second_text"):
        return rank == 0
    # Pictures alone: a file, or values of height, width and colour.
    alone = name == "images" and "text" not in names
    return alone and rank in (0, 3)


def _check_class_weight(task, class_weight):
    width = task.label_widths()
    if not isinstance(width, int) or len(task.output.shape) != 2 or width < 2:
        raise ValueError(
            "`class_weight` needs labels that are classes, which this task "
            "has not. Weigh rows by `sample_weight`. Received: "
            f"class_weight={class_weight!r:.200}"
        )
    if set(class_weight) != set(range(width)):
        raise ValueError(
            f"`class_weight` must have a weight for each of the {width} "
            f"classes, by its id from 0 to {width - 1}. Received: "
            f"class_weight={class_weight!r:.200}"
        )
