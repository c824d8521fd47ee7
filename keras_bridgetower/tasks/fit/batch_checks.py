"""Checks of batches, of features' values, and that losses fit their labels."""

import functools

import keras
import numpy as np
from keras import ops

from keras_bridgetower.distribution import strategy
from keras_bridgetower.models import checks
from keras_bridgetower.objectives import losses
from keras_bridgetower.preprocessing.geometry import leaves_as_is
from keras_bridgetower.preprocessing.tf_datasets import label_names
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import in_tf_graph
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor

# Losses whose labels are checked; others take any labels.
_WITH_RULE = (
    losses.VQALoss,
    losses.MaskedLMLoss,
    keras.losses.SparseCategoricalCrossentropy,
)


def check_batches(task, data, **checked):
    """Reject a dataset without the task's labels, or with those of another.

    Args:
        task: the task.
        data: a `tf.data.Dataset`.
        **checked: as in `check_batch`.

    Raises:
        ValueError: single samples, no labels, labels of other classes, or a
            black frame.
    """
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    if isinstance(x, dict):
        check_batched(task, {name: spec.shape.rank for name, spec in x.items()})
        _check_frame(task, x)
    check_batch(task, y, **checked)
    names = label_names(data)
    if names is not None and checked.get("labelled", True):
        check_classes(task, names)


def check_batched(task, ranks):
    """Reject single samples.

    Args:
        task: the task.
        ranks: dict from the names of inputs to their numbers of axes, None
            where these are unknown.
    """
    if task.preprocessor is None:
        # States of pictures have an axis less than pictures.
        single = {
            k: range(len(x.shape) - (k == "images"))
            for k, x in task.input.items()
        }
    else:
        # Pictures alone: a file, or an array of height, width and channels.
        alone = (0, 3) if "text" not in ranks else ()
        single = {"text": (0,), "second_text": (0,), "images": alone}
    for name, rank in ranks.items():
        if rank in single.get(name, ()):
            raise ValueError(
                "`x` must hold batches: a dict of arrays and lists, or what "
                f"`dataset.batch(32)` returns. Received: {name} of {rank} axes"
            )


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
        raise ValueError(
            "The records must have the classes of the task, in the same "
            "order. Build them with those, or make the task with "
            f"`stream.labels`. Received: {labels!r:.200} for {names!r:.200}"
        )


def _check_frame(task, specs):
    """Reject a stream whose pictures would be cropped, or get a frame.

    A user's own picture may be, as in `transformers`. A stream, which is
    recognized by `step`, has made squares for the model.
    """
    converter = getattr(task.preprocessor, "image_converter", None)
    if converter is None or not {"step", "images"} <= set(specs):
        return
    side = converter.image_size
    square = tuple(specs["images"].shape)[-3:] == (side, side, 3)
    if square and not leaves_as_is(converter.square):
        raise ValueError(
            "The stream's `transform` makes squares of the model's size, and "
            "the preprocessor's image converter would crop them, or shrink "
            "them into a black frame. Open the task with image_mode='squash' "
            "or 'crop', and give the converter crop_pct=1. "
            f"Received: size_divisor={converter.size_divisor}, "
            f"crop_pct={converter.crop_pct}"
        )


def check_partners(task, x):
    """Reject training on pairs if a process has one row of each batch.

    A preprocessor pairs the rows that it receives: with one row, every label
    would be "match".

    Args:
        task: the task.
        x: the `tf.data.Dataset` of this process.

    Raises:
        ValueError: one row of a batch in each of several processes.
    """
    processes = strategy.current().processes
    if processes == 1 or not getattr(task.preprocessor, "pairs_rows", False):
        return
    rows = keras.tree.flatten(x.element_spec)
    if {spec.shape[0] for spec in rows if spec.shape.rank} == {1}:
        raise ValueError(
            "A batch must have at least two rows for each process: the "
            "preprocessor pairs the rows that it sees. "
            f"Received: one row in each of {processes} processes"
        )


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


def check_batch(task, y, labelled=True, class_weight=None):
    """Reject a batch without the task's labels, or weights of other classes.

    Args:
        task: the task.
        y: labels, or None.
        labelled: bool, whether labels are required.
        class_weight: dict from class ids to weights, or None.

    Raises:
        ValueError: missing labels, or wrong class weights.
    """
    words = task.label_words()
    if labelled and y is None and words:
        raise ValueError(
            f"`y` must hold {words}; batches are `(x, y)`. Received: y=None"
        )
    if class_weight is None:
        return
    width = task.label_widths()
    if not isinstance(width, int) or len(task.output.shape) != 2 or width < 2:
        raise ValueError(
            "`class_weight` must be left out: labels of this task are no "
            "classes. Weigh rows by `sample_weight`. "
            f"Received: class_weight={class_weight!r:.200}"
        )
    if set(class_weight) != set(range(width)):
        raise ValueError(
            f"`class_weight` must have a weight for each of the {width} "
            f"classes, by its id. Received: class_weight={class_weight!r:.200}"
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
    if any(_are_strings(v) for v in (y.values() if type(y) is dict else [y])):
        raise ValueError(
            "`y` must hold numbers without a preprocessor, which would find "
            "the ids of names. Received: y of strings"
        )
    read = checks.without_states(x, task.input)
    features = {k: v for k, v in read.items() if k in checks.CHECKED_FEATURES}
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


def _are_strings(labels):
    if in_tf_graph() or ops.is_tensor(labels):
        return is_string_tensor(labels)
    first = np.asarray(labels).flat[:1]
    return any(isinstance(label, (str, bytes)) for label in first)


def _check(backbone, names, rules, *values):
    features = dict(zip(names, values, strict=False))
    checks.check_feature_values(features, backbone)
    for (loss, width), y in zip(rules, values[len(names) :], strict=True):
        if not isinstance(loss, losses.VQALoss):
            ignored = getattr(loss, "ignore_class", None)
            ignored = getattr(loss, "ignore_id", ignored)
            checks.check_ids("y", y, width, ignored)
        elif y.shape[1:] == (width,):
            # The loss itself rejects labels of another form.
            losses.check_scores("y", y)
    return np.int32(0)


def _rules(task, y):
    """Return loss, number of logits and labels of each output with a rule."""
    given = [getattr(task, "loss", None), task.label_widths(), y]
    loss, widths, labels = (
        value if isinstance(value, dict) else {"": value} for value in given
    )
    return [
        (loss[name], widths[name], labels[name])
        for name in set(loss) & set(labels) & set(widths)
        if isinstance(loss[name], _WITH_RULE)
    ]


def check_reads_logits(loss):
    """Raise for a cross-entropy that would take logits for probabilities."""
    for one in keras.tree.flatten(loss):
        named = isinstance(one, str)
        name = one.title().replace("_", "") if named else type(one).__name__
        named = named and name.endswith("Crossentropy")
        if named or getattr(one, "from_logits", None) is False:
            raise ValueError(
                "`loss` must read logits. Leave it out, or pass "
                f"`keras.losses.{name}(from_logits=True)`. "
                f"Received: loss={one!r:.100}"
            )


def check_targets(loss, y, y_pred):
    """Raise if a sparse loss gets scores, or another loss gets class ids."""
    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy) or one_hot:
        ids = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
        if ids == one_hot:
            fit = "SparseCategorical" if ids else "Categorical"
            raise ValueError(
                f"`loss` must take targets of shape {tuple(y.shape)}. Leave it "
                f"out, or pass `keras.losses.{fit}Crossentropy("
                f"from_logits=True)`. Received: loss={loss.name!r}"
            )
