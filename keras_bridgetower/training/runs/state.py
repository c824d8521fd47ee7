"""Saves the state of a run as named arrays, and restores it."""

import contextlib

import keras
import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.training import build_from_spec
from keras_bridgetower.backend.keras_private.versions import is_known
from keras_bridgetower.training.runs.folders import CheckpointError

_METRICS, _RANDOM = "metrics/", "random/"


def arrays(model, value):
    """Return all variables of a model, its optimizer and metrics as arrays.

    Unlike Keras' weight files they include the seeds of the layers.

    Args:
        model: a compiled model.
        value: function from a variable to its array.

    Returns:
        dict from name to array.
    """
    named = {
        **variables(model),
        **_by_name(model.optimizer.variables, "optimizer/"),
        **_by_name(model.metrics_variables, _METRICS),
    }
    return {name: value(variable) for name, variable in named.items()}


def variables(model):
    """Return the variables of a model by name, without those of metrics."""
    return _by_name(_variables(model), "model/")


def random():
    """Return the state of the backend's random generators as arrays."""
    return {_RANDOM + k: v for k, v in backend_ops.random_state().items()}


def restore(model, arrays, scope=contextlib.nullcontext):
    """Restore the variables of a model and its optimizer.

    Args:
        model: a compiled model of the same architecture.
        arrays: dict from name to NumPy array, from `arrays` and `random`.
        scope: callable that returns a context in which to create variables.

    Returns:
        dict of the arrays to restore when training begins, by
        `restore_metrics` and `restore_random`.

    Raises:
        CheckpointError: the model has other variables; it lists them.
    """
    with scope():
        precision.build_once(model.optimizer, model.trainable_variables)
        _assign(_variables(model), arrays, "model/")
        _assign(model.optimizer.variables, arrays, "optimizer/")
    late = (_METRICS, _RANDOM)
    return {k: v for k, v in arrays.items() if k.startswith(late)}


def restore_metrics(model, arrays):
    """Restore the metrics of a model, whose variables must exist."""
    _assign(model.metrics_variables, arrays, _METRICS)


def restore_random(arrays):
    """Restore the backend's random generators."""
    backend_ops.set_random_state(
        {
            name.removeprefix(_RANDOM): value
            for name, value in arrays.items()
            if name.startswith(_RANDOM)
        }
    )


def build_metrics(model, dataset):
    """Create the variables of losses and metrics, from shapes only.

    Args:
        model: a compiled model.
        dataset: `tf.data.Dataset`, the training data. No batch is read,
            except with an unknown version of Keras.
    """
    if getattr(model, "preprocessor", None) is not None:
        dataset = dataset.map(model.preprocess_samples)
    if is_known():
        build_from_spec(model, dataset.element_spec)
        return
    batch = keras.tree.map_structure(
        keras.ops.convert_to_tensor, next(iter(dataset))
    )
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    with backend_ops.inference_scope():
        y_pred = model(x, training=False)
        model.compute_loss(x, y, y_pred, weights, training=False)
        model.compute_metrics(x, y, y_pred, weights)


def _variables(model):
    """Return the variables of a model without those of metrics, each once."""
    metrics = {id(v) for v in model.metrics_variables}
    known = {id(v): v for v in model.variables if id(v) not in metrics}
    return list(known.values())


def _by_name(variables, prefix):
    return {f"{prefix}{i}/{v.name}": v for i, v in enumerate(variables)}


def _assign(variables, arrays, prefix):
    """Set each variable to the array of its name, after checking all."""
    named = _by_name(variables, prefix)
    saved = {k: v for k, v in arrays.items() if k.startswith(prefix)}
    differing = sorted(set(named) ^ set(saved))
    differing += [
        name
        for name in sorted(set(named) & set(saved))
        if tuple(named[name].shape) != saved[name].shape
    ]
    if differing:
        raise CheckpointError(
            "A checkpoint must be of the same model, optimizer and metrics. "
            f"Received: {len(differing)} variables that differ, the first 20: "
            f"{differing[:20]}"
        )
    for name, variable in named.items():
        variable.assign(np.asarray(saved[name]))
