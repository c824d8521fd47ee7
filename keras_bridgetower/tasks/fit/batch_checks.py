"""Checks of batches: their inputs, labels and shapes, and features' values."""

import functools
import itertools

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import devices
from keras_bridgetower.models.checks import CHECKED_FEATURES
from keras_bridgetower.models.checks import check_feature_values
from keras_bridgetower.models.checks import check_ids
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.objectives.losses import check_scores
from keras_bridgetower.preprocessing.geometry import leaves_as_is
from keras_bridgetower.preprocessing.tf_datasets import label_names
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import in_tf_graph
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor
from keras_bridgetower.preprocessing.tf_graph import shape_of_rows


def check_batches(task, data, **checked):
    """Reject a dataset of single samples, or without the task's labels.

    Args:
        task: the task.
        data: a `tf.data.Dataset`.
        **checked: as in `check_batch`.

    Raises:
        ValueError: missing inputs or labels, or labels of other classes.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    x = x if isinstance(x, dict) else {}
    shapes = {
        name: None if spec.shape.rank is None else tuple(spec.shape)
        for name, spec in x.items()
    }
    check_batch(task, shapes, y is None, **checked)
    _check_frame(task, shapes)
    names = label_names(data)
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
            "order. Build them with those (for your own tables `--set "
            "labels=A,B`), or make the task with `stream.labels`. Received: "
            f"{len(labels)} labels, for {len(names)} classes; number {place} "
            f"is {label!r} for the records and {name!r} for the task"
        )


def _check_frame(task, shapes):
    """Reject a stream whose pictures would shrink into a black frame.

    A user's own picture may get one, as in `transformers`. A stream, which is
    recognized by `step`, has made squares for the model.
    """
    converter = getattr(task.preprocessor, "image_converter", None)
    if converter is None or "step" not in shapes:
        return
    side = converter.image_size
    square = (shapes.get("images") or ())[-3:] == (side, side, 3)
    if square and not leaves_as_is(
        side, converter.mode, converter.size_divisor
    ):
        raise ValueError(
            "The stream's `transform` makes squares of the model's size, and "
            "the preprocessor's image converter would shrink them into a "
            "black frame. Open the task with image_mode='squash' or 'crop'. "
            f"Received: mode={converter.mode!r}, image_size={side}, "
            f"size_divisor={converter.size_divisor}"
        )


def check_partners(task, x):
    """Reject training on pairs if a process has one row of each batch.

    A preprocessor pairs the rows that it receives: of one row, every label
    would be "match".

    Args:
        task: the task.
        x: the `tf.data.Dataset` of this process.

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
            "preprocessor pairs the rows that it sees. Use a larger batch. "
            f"Received: one row in each of {processes} processes"
        )


def check_arrays(task, x, y, **checked):
    """Check one batch of arrays and lists, as `check_batches` a dataset."""
    if isinstance(x, dict):
        shapes = {name: shape_of_rows(rows) for name, rows in x.items()}
        check_batch(task, shapes, y is None, **checked)


def check_lists_of_pictures(task, x):
    """Reject a batch whose samples and pictures could be confused.

    If each sample is a list of two pictures, a `DataLoader` makes two lists of
    them, each with one picture of every sample. For two samples they have the
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
            "each sample; let a sample hold its pictures as one array. "
            f"Received: images with rows of type {type(images[0]).__name__}"
        )


def check_batch(task, shapes, unlabelled, labelled=True, class_weight=None):
    """Reject a batch that is a single sample, or without the task's labels.

    Args:
        task: the task.
        shapes: dict from the names of the inputs to their shapes, None if
            their rank is unknown.
        unlabelled: bool, whether labels are missing.
        labelled: bool, whether labels are required.
        class_weight: dict from class ids to weights, or None.

    Raises:
        ValueError: missing inputs or labels, or wrong class weights.
    """
    if task.preprocessor is None and shapes:
        check_names(task, shapes)
    for name, shape in shapes.items():
        if shape is not None and _is_single(task, name, len(shape), shapes):
            raise ValueError(
                "`x` must hold batches. Batch it, as by `dataset.batch(32)`. "
                f"Received: {name} of shape {shape}"
            )
    if labelled and unlabelled and task.label_words() is not None:
        raise ValueError(
            f"`y` must hold {task.label_words()}; batches are `(x, y)`. "
            "Received: y=None"
        )
    if class_weight is not None:
        _check_class_weight(task, class_weight)


def _is_single(task, name, rank, names):
    """Return True if a feature lacks the batch axis."""
    if task.preprocessor is None:
        known = task.input.get(name)
        return known is not None and rank < len(known.shape)
    if name in ("text", "second_text"):
        return rank == 0
    # Pictures without texts: a file, or an array (height, width, channels).
    alone = name == "images" and "text" not in names
    return alone and rank in (0, 3)


def _check_class_weight(task, class_weight):
    width = task.label_widths()
    if not isinstance(width, int) or len(task.output.shape) != 2 or width < 2:
        raise ValueError(
            "`class_weight` needs labels that are classes, which this task "
            "has not; use `sample_weight`. Received: "
            f"class_weight={class_weight!r:.200}"
        )
    if set(class_weight) != set(range(width)):
        raise ValueError(
            f"`class_weight` must have a weight for each of the {width} "
            f"classes, by its id from 0 to {width - 1}. Received: "
            f"class_weight={class_weight!r:.200}"
        )


def check_weights(sample_weight):
    """Return weights of rows as an array, tensors unchanged.

    Args:
        sample_weight: as `fit` takes it, or a dict of them.

    Raises:
        ValueError: weights that are not finite numbers.
    """
    if isinstance(sample_weight, dict):
        return {name: check_weights(w) for name, w in sample_weight.items()}
    if sample_weight is None or in_tf_graph() or ops.is_tensor(sample_weight):
        return sample_weight
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "biuf" or not np.isfinite(weights).all():
        raise ValueError(
            "`sample_weight` must hold finite numbers, one for each sample. "
            f"Received: sample_weight={sample_weight!r:.200}"
        )
    return weights


def check_names(task, x):
    if not set(task.input) <= set(x):
        raise ValueError(
            "`x` must be features, as a preprocessor makes them, with "
            f"`preprocessor=None`: {sorted(task.input)}. "
            f"Received: x with the keys {sorted(x)}"
        )


def check_values(task, x, y):
    """Reject features and labels out of range.

    Inside of a `tf.data` graph they are checked when a batch is read.

    Args:
        task: the task, which reads features directly.
        x: dict of features `(batch, ...)`.
        y: labels, or None.

    Raises:
        ValueError: it names the value.
    """
    for labels in keras.tree.flatten(y) if isinstance(y, dict) else [y]:
        if labels is not None:
            _check_numbers(labels)
    features = {k: v for k, v in x.items() if k in CHECKED_FEATURES}
    rules = [] if y is None else _rules(task, y)
    values = [*features.values(), *(labels for *_, labels in rules)]
    if not in_tf_graph():
        # Pictures stay on an accelerator.
        values = [
            v
            if v is x.get("images") and ops.is_tensor(v)
            else ops.convert_to_numpy(v)
            for v in values
        ]
    # Not a closure, which AutoGraph would rewrite for the graph.
    check = functools.partial(
        _check,
        task.backbone,
        list(features),
        [(loss, width) for loss, width, _ in rules],
    )
    apply_numpy(check, values, ("int32", ()))


def _check_numbers(labels):
    """Reject strings, which need a preprocessor to become ids."""
    if in_tf_graph() or ops.is_tensor(labels):
        strings = is_string_tensor(labels)
    else:
        strings = np.asarray(labels).dtype.kind in "OSUT"
    if strings:
        raise ValueError(
            "`y` must hold numbers where the task has `preprocessor=None`; a "
            "preprocessor makes ids of names. Received: y of strings"
        )


def _check(backbone, names, rules, *values):
    features = dict(zip(names, values, strict=False))
    check_feature_values(features, backbone)
    for (loss, width), y in zip(rules, values[len(names) :], strict=True):
        _RULES[type(loss)](loss, y, width)
    return np.int32(0)


def _rules(task, y):
    """Return loss, number of logits and labels of each output with a rule."""
    given = [getattr(task, "loss", None), task.label_widths(), y]
    loss, widths, labels = (
        value if isinstance(value, dict) else {"": value} for value in given
    )
    return [
        (loss[name], widths[name], labels[name])
        for name in loss
        if name in labels and name in widths and type(loss[name]) in _RULES
    ]


def _check_scores(loss, y, width):
    # The loss itself rejects labels of another form.
    if y.shape[1:] == (width,):
        check_scores("y", y)


# Checks of labels by loss; other losses take any labels.
_RULES = {
    VQALoss: _check_scores,
    MaskedLMLoss: lambda loss, y, width: check_ids(
        "y", y, width, loss.ignore_id
    ),
    keras.losses.SparseCategoricalCrossentropy: (
        lambda loss, y, width: check_ids("y", y, width, loss.ignore_class)
    ),
}
