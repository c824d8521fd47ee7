"""What decides a run besides its data, as values that a checkpoint holds."""

import hashlib
import inspect
import json

import keras

from keras_bridgetower.backend import keras_patches
from keras_bridgetower.data.written import written_without_places

# Of Keras' configurations: names count how many objects a process has made,
# and the rest says where a class stands or what an object has been built for.
_PASSED_OVER = ("name", "module", "registered_name", "build_config")
# Characters of a value; of longer ones, such as thousands of answers, the sum
# is kept.
_LONGEST = 200


def of_run(model, stream):
    """What a run must go on with besides its settings, versions and data.

    Args:
        model: a compiled `keras.Model`, before anything is restored.
        stream: what gives the batches.

    Returns:
        dict, as `of_model` and `of_stream`.
    """
    return {**of_model(model), **of_stream(stream)}


def with_rate_of(arrays, then, now):
    """What a run is now, where a callback has lowered the learning rate.

    Args:
        arrays: dict, those of the checkpoint.
        then, now: dicts, as `of_run`.

    Returns:
        `now`, with the learning rate that the run began with where the
        optimizer has the one that it had reached.
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
    """What a compiled model and its optimizer are, as flat plain values.

    Args:
        model: a compiled `keras.Model`, before anything is restored.

    Returns:
        dict from names, such as `"optimizer.learning_rate.peak"`, to numbers,
        strings, None and lists of them. A value that is longer than 200
        characters stands there as its SHA-256.
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
    """What a stream's `identity` cannot show: the functions of its user.

    Args:
        stream: what gives the batches.

    Returns:
        dict with the sums of the sources of `stream.transform` and its
        steps, where those are no values that `repr` describes.
    """
    transform = getattr(stream, "transform", None)
    parts = [transform, *getattr(transform, "steps", ())]
    return {
        f"transform.source {place}": source
        for place, source in enumerate(map(source_of, parts))
        if source
    }


def source_of(value):
    """The sum of the source of a function or object that `repr` hides.

    Args:
        value: anything.

    Returns:
        str in hexadecimal; None for what `repr` describes, as a dataclass,
        and for what has no source.
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
        held = inspect.getclosurevars(value).nonlocals
    else:
        held = getattr(value, "__dict__", {})
    return _sum(text + _plain_text(held))


def _config_of(value):
    """The configuration of an object, or how it describes itself."""
    try:
        return keras.saving.serialize_keras_object(value)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return written_without_places(value)


def _flat(name, value):
    """The leaves of nested configurations, with their paths."""
    if isinstance(value, dict) and "class_name" in value:
        yield name, value["class_name"]
        value = value.get("config")
        # A function's is its name.
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
