"""Checks that features and labels have values that a task can learn from."""

import functools

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models.checks import CHECKED_FEATURES
from keras_bridgetower.models.checks import check_feature_values
from keras_bridgetower.models.checks import check_ids
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.objectives.losses import check_scores
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import in_tf_graph
from keras_bridgetower.preprocessing.tf_graph import is_string_tensor


def _scores(loss, y, width):
    # Labels of another form the loss refuses, which says what it takes.
    if y.shape[1:] == (width,):
        check_scores("y", y)


def _tokens(loss, y, width):
    check_ids("y", y, width, loss.ignore_id)


def _classes(loss, y, width):
    check_ids("y", y, width, loss.ignore_class)


# What losses ask of labels; the others take any.
_RULES = {
    VQALoss: _scores,
    MaskedLMLoss: _tokens,
    keras.losses.SparseCategoricalCrossentropy: _classes,
}


def check_features(task, x, y):
    """Refuse what is no features, or has values out of range."""
    check_names(task, x)
    check_values(task, x, y)


def check_values(task, x, y):
    """Refuse features and labels out of range.

    Inside of a `tf.data` graph they are looked at when a batch is read.

    Args:
        task: the task, which reads features as they are.
        x: dict of features `(batch, ...)`.
        y: labels, or None.

    Raises:
        ValueError: it says which value of what.
    """
    for labels in keras.tree.flatten(y) if isinstance(y, dict) else [y]:
        if labels is not None:
            _check_numbers(labels)
    features = {k: v for k, v in x.items() if k in CHECKED_FEATURES}
    rules = [] if y is None else _rules(task, y)
    values = [*features.values(), *(labels for *_, labels in rules)]
    if not in_tf_graph():
        # Pictures on an accelerator stay there.
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


def weights_of(given):
    """Weights of rows as an array, where they are no tensor.

    Args:
        given: `sample_weight` as `fit` takes it, or a dict of them.

    Raises:
        ValueError: what is no finite number.
    """
    if isinstance(given, dict):
        return {name: weights_of(weights) for name, weights in given.items()}
    if given is None or in_tf_graph() or ops.is_tensor(given):
        return given
    weights = np.asarray(given)
    if weights.dtype.kind not in "biuf" or not np.isfinite(weights).all():
        raise ValueError(
            "`sample_weight` must hold finite numbers, one for each sample. "
            f"Received: sample_weight={given!r:.200}"
        )
    return weights


def check_names(task, x):
    if not set(task.input) <= set(x):
        raise ValueError(
            "`x` must be features, as a preprocessor makes them, where the "
            f"task has `preprocessor=None`: {sorted(task.input)}. "
            f"Received: x with the keys {sorted(x)}"
        )


def _check_numbers(labels):
    """Refuse strings, which a preprocessor would have made ids of."""
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
    labels = values[len(names) :]
    for (loss, width), y in zip(rules, labels, strict=True):
        _RULES[type(loss)](loss, y, width)
    return np.int32(0)


def _rules(task, y):
    """Loss, width of the logits and labels of each output with a rule."""
    given = [getattr(task, "loss", None), task.label_widths(), y]
    loss, widths, labels = (
        value if isinstance(value, dict) else {"": value} for value in given
    )
    return [
        (loss[name], widths[name], labels[name])
        for name in loss
        if name in labels and name in widths and type(loss[name]) in _RULES
    ]
