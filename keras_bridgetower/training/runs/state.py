"""All that a run consists of, as arrays by name, and back."""

import contextlib
import importlib
import importlib.metadata
import json

import keras
import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import keras_patches
from keras_bridgetower.backend import keras_patches_distribution
from keras_bridgetower.backend import precision
from keras_bridgetower.training.runs.folders import CheckpointError

_PACKAGES = ("keras", "keras-hub", "keras-bridgetower", "numpy")
_METRICS, _RANDOM = "metrics/", "random/"


def of(model, value):
    """Every variable of a model, its optimizer and its metrics.

    The seeds of the layers are among the model's variables, though in no
    weight file of Keras.

    Args:
        model: a compiled model.
        value: function of a variable, which returns an array.

    Returns:
        dict from name to array.
    """
    named = {
        **variables_of(model),
        **_by_name(model.optimizer.variables, "optimizer/"),
        **_by_name(model.metrics_variables, _METRICS),
    }
    return {name: value(variable) for name, variable in named.items()}


def variables_of(model):
    """Those of the arrays of `of` that are the model's own, by name."""
    return _by_name(_variables(model), "model/")


def random():
    """The state of the backend's own generators, as `of` gives the rest."""
    return {_RANDOM + k: v for k, v in backend_ops.random_state().items()}


def restore(model, arrays, scope=contextlib.nullcontext):
    """Set a model and its optimizer to what `of` returned.

    Args:
        model: a compiled model of the same architecture.
        arrays: dict from name to NumPy array.
        scope: callable that returns a context, in which variables are made.

    Returns:
        dict of what must wait until training begins, for `restore_metrics`
        and `restore_random`.

    Raises:
        CheckpointError: other variables; it lists them.
    """
    with scope():
        precision.build_once(model.optimizer, model.trainable_variables)
        _assign(_variables(model), arrays, "model/")
        _assign(model.optimizer.variables, arrays, "optimizer/")
    late = (_METRICS, _RANDOM)
    return {k: v for k, v in arrays.items() if k.startswith(late)}


def restore_metrics(model, arrays):
    """Set the metrics of a model, whose variables are there."""
    _assign(model.metrics_variables, arrays, _METRICS)


def restore_random(arrays):
    """Set the backend's own generators."""
    backend_ops.set_random_state(
        {
            name.removeprefix(_RANDOM): value
            for name, value in arrays.items()
            if name.startswith(_RANDOM)
        }
    )


def build_metrics(model, dataset):
    """Let losses and metrics make their variables, from shapes.

    Args:
        model: a compiled model.
        dataset: `tf.data.Dataset` of what it trains on. Nothing of it is read
            by a Keras that is known.
    """
    if getattr(model, "preprocessor", None) is not None:
        dataset = dataset.map(model.preprocess_samples)
    if keras_patches.is_known():
        keras_patches_distribution.build_metrics(model, dataset.element_spec)
        return
    batch = keras.tree.map_structure(
        keras.ops.convert_to_tensor, next(iter(dataset))
    )
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    with backend_ops.inference_scope():
        y_pred = model(x, training=False)
        model.compute_loss(x, y, y_pred, weights, training=False)
        model.compute_metrics(x, y, y_pred, weights)


def versions():
    """Versions of all that the numbers of a run depend on, as strings."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    backend = keras.config.backend()
    # Its package may have another name, such as tensorflow-cpu.
    found[backend] = str(importlib.import_module(backend).__version__)
    return {**found, "backend": backend}


def origin(settings, stream):
    """What a run must go on with, as plain values.

    Args:
        settings: dict of plain values.
        stream: what gives the batches, with `steps_per_epoch` and mostly an
            `identity`.

    Returns:
        dict of dicts, as it is after it was written and read.
    """
    values = {
        "settings": settings,
        "versions": versions(),
        "stream": {
            "steps_per_epoch": stream.steps_per_epoch,
            **getattr(stream, "identity", {}),
        },
    }
    return json.loads(json.dumps(values))


def differences(then, now):
    """Lines that say where two `origin`s differ, in the parts of both."""
    return [
        f"{part}.{name}: {before.get(name)!r} then, {value.get(name)!r} now"
        for part, value in now.items()
        # An older checkpoint may lack a part.
        if (before := then.get(part)) is not None
        for name in sorted({*before, *value})
        if before.get(name) != value.get(name)
    ]


def _variables(model):
    """Variables of a model but its metrics', each once."""
    metrics = {id(v) for v in model.metrics_variables}
    known = {id(v): v for v in model.variables if id(v) not in metrics}
    return list(known.values())


def _by_name(variables, prefix):
    return {f"{prefix}{i}/{v.name}": v for i, v in enumerate(variables)}


def _assign(variables, arrays, prefix):
    """Set each variable to the array of its name, or none at all."""
    named = _by_name(variables, prefix)
    saved = {k: v for k, v in arrays.items() if k.startswith(prefix)}
    odd = sorted(set(named) ^ set(saved))
    odd += [
        name
        for name in sorted(set(named) & set(saved))
        if tuple(named[name].shape) != saved[name].shape
    ]
    if odd:
        raise CheckpointError(
            "A checkpoint must be of the same model, optimizer and metrics. "
            f"Received: {len(odd)} variables that differ, the first 20: "
            f"{odd[:20]}"
        )
    for name, variable in named.items():
        variable.assign(np.asarray(saved[name]))
