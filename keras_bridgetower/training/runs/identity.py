"""Describes model, optimizer and loss of a run, to compare on continuation."""

import hashlib
import inspect
import json

import keras

from keras_bridgetower.backend.keras_private import patches as keras_patches
from keras_bridgetower.data.written import written_without_places

# Keys of Keras' configurations that are not compared. Names contain a counter
# of the process; the others are the place of a class and built shapes.
_PASSED_OVER = ("name", "module", "registered_name", "build_config")
# Characters of a value. Longer values, such as thousands of answers, are
# replaced by their SHA-256.
_LONGEST = 200


def of_run(model, stream):
    """Describe what must not change when a run continues.

    Settings, versions and data are compared elsewhere (`state.origin`).

    Args:
        model: a compiled `keras.Model`, before a checkpoint is restored.
        stream: the training data.

    Returns:
        dict, joined from `of_model` and `of_stream`.
    """
    return {**of_model(model), **of_stream(stream)}


def with_rate_of(arrays, then, now):
    """Accept a learning rate that a callback has lowered during the run.

    Args:
        arrays: dict, the arrays of the checkpoint.
        then: dict, from `of_run`, of the checkpoint.
        now: dict, from `of_run`, of the current model.

    Returns:
        `now`, or, if its learning rate is the one that the checkpoint had
        reached, a copy with the learning rate of `then`.
    """
    name = "optimizer.learning_rate"
    reached = [
        float(array)
        for path, array in arrays.items()
        if path.startswith("optimizer/") and path.endswith("/learning_rate")
    ]
    if name in then and now.get(name) in reached:
        return {**now, name: then[name]}
    return now


def of_model(model):
    """Describe a compiled model and its optimizer by flat plain values.

    Args:
        model: a compiled `keras.Model`, before a checkpoint is restored.

    Returns:
        dict from names, such as `"optimizer.learning_rate.peak"`, to numbers,
        strings, None and lists of them. A value of more than 200 characters
        is replaced by its SHA-256.
    """
    layers = [model, *keras_patches.layers_in(model)]
    dropouts = [x for x in layers if isinstance(x, keras.layers.Dropout)]
    preprocessor = getattr(model, "preprocessor", None)
    tokenizer = getattr(preprocessor, "tokenizer", None)
    vocabulary = getattr(tokenizer, "get_vocabulary", None)
    values = {
        "optimizer": _config_of(model.optimizer),
        "loss": _config_of(model.loss),
        "dtype": sorted({layer.dtype_policy.name for layer in layers}),
        "dropout": sorted({float(layer.rate) for layer in dropouts}),
        "preprocessor": _config_of(preprocessor),
        "vocabulary": vocabulary() if vocabulary else None,
    }
    return dict(_flat("", values))


def of_stream(stream):
    """Describe functions of the user, which a stream's `identity` cannot show.

    Args:
        stream: the training data.

    Returns:
        dict with the SHA-256 of the source code of `stream.transform` and of
        its steps, if their `repr` does not describe them.
    """
    transform = getattr(stream, "transform", None)
    parts = [transform, *getattr(transform, "steps", ())]
    return {
        f"transform.source {place}": source
        for place, source in enumerate(map(source_of, parts))
        if source
    }


def source_of(value):
    """The SHA-256 of the source code of a function or an object's class.

    Args:
        value: anything.

    Returns:
        str in hexadecimal. None if the `repr` describes the value, as that of
        a dataclass does, or if there is no source code.
    """
    kind = value if inspect.isroutine(value) else type(value)
    described = kind is not value and kind.__repr__ is not object.__repr__
    if value is None or described:
        return None
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        return None
    if kind is value:
        variables = inspect.getclosurevars(value).nonlocals
    else:
        variables = getattr(value, "__dict__", {})
    return _sum(text + _plain_text(variables))


def _config_of(value):
    """The Keras configuration of an object, or else its `repr`."""
    try:
        return keras.saving.serialize_keras_object(value)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return written_without_places(value)


def _flat(name, value):
    """The leaves of a nested configuration, as pairs of path and value."""
    if isinstance(value, dict) and "class_name" in value:
        yield name, value["class_name"]
        value = value.get("config")
        # The config of a function is its name.
        if not isinstance(value, dict):
            yield f"{name}.config", _short(value)
            return
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in _PASSED_OVER:
                yield from _flat(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, _short(value)


def _short(value):
    text = _plain_text(value)
    if len(text) > _LONGEST:
        return f"sha256 {_sum(text)}"
    return json.loads(text)


def _plain_text(value):
    return json.dumps(value, default=written_without_places, sort_keys=True)


def _sum(text):
    return hashlib.sha256(text.encode()).hexdigest()
