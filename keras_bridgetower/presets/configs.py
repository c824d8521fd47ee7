"""Configurations in preset files: a closed list of classes, sane sizes.

Keras imports and calls what a configuration names. Here a name only finds a
class that is registered with Keras already, and only where the reader expects
that class.
"""

import keras

from keras_bridgetower.presets.errors import shown

# Libraries whose classes have no place inside other objects: what a saved
# object of theirs holds is plain values and dtypes.
_LIBRARIES = ("keras", "keras_hub", "keras_bridgetower", "builtins")
# Largest values by the end of their name. A model that exceeds them would
# take the memory of the machine, or its time, before anything is wrong.
_LARGEST = {
    "num_layers": 1_000,
    "num_heads": 10_000,
    "hidden_dim": 100_000,
    "projection_dim": 100_000,
    "intermediate_dim": 1_000_000,
    "mlp_dim": 1_000_000,
    "image_shape": 100_000,
    "image_size": 100_000,
    "hidden_scale": 1_000,
    "sequence_length": 1_000_000,
    "vocabulary_size": 10_000_000,
    "num_classes": 10_000_000,
}
_DEEPEST = 50


def class_and_values(spec, base):
    """The class that a configuration names, and its constructor's values.

    Args:
        spec: dict, as Keras serialises an object.
        base: class that it must be, or a superclass.

    Returns:
        `(class, dict)`; `check_values` has not seen the values yet.

    Raises:
        ValueError: another class, or values that no saved object has.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), dict):
        raise ValueError(
            "An object must be saved with its class and `config`. Received: "
            f"{shown(spec)}"
        )
    cls = registered(spec)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(
            f"A {base.__name__} must stand here, or a subclass of it that was "
            "registered by `keras.saving.register_keras_serializable` before. "
            f"Received: registered_name={shown(spec.get('registered_name'))}"
        )
    return cls, spec["config"]


def registered(spec):
    """The class that is registered under the name in a configuration."""
    name = spec.get("registered_name")
    found = keras.saving.get_registered_object(name) if _is_name(name) else None
    # Keras takes some class names for things that are no classes.
    return found if spec.get("class_name") == _name_of(found) else None


def _is_name(name):
    return isinstance(name, str) and 0 < len(name) < 200


def _name_of(cls):
    return cls.__name__ if isinstance(cls, type) else object()


def check_values(values, name="config", depth=0):
    """Refuse values that no saved object has.

    Args:
        values: what a configuration holds, plain values and dicts of objects.
        name: str, the name that they stand under.
        depth: int, how many containers they are in.

    Raises:
        ValueError: objects that are no dtype and were not registered by the
            user, absurd sizes, or too deep containers.
    """
    if depth > _DEEPEST:
        raise ValueError(f"`{name}` must not be nested that deep.")
    if isinstance(values, dict):
        if "class_name" in values and not (
            _is_dtype(values) or _is_users(values)
        ):
            raise ValueError(
                f"`{name}` must hold plain values, dtypes and objects whose "
                "class you registered with `keras.saving."
                "register_keras_serializable`. Received: class_name="
                f"{shown(values['class_name'])}, module="
                f"{shown(values.get('module'))}, registered_name="
                f"{shown(values.get('registered_name'))}"
            )
        for key, value in values.items():
            check_values(value, key, depth + 1)
    elif isinstance(values, (list, tuple)):
        for value in values:
            check_values(value, name, depth + 1)
    elif isinstance(values, (int, float)):
        _check_size(name, values)


def _check_size(name, value):
    for end, largest in _LARGEST.items():
        if name.endswith(end) and not abs(value) <= largest:
            raise ValueError(
                f"`{name}` must be at most {largest:,}. Received: "
                f"{name}={shown(value)}"
            )


def check_own_file(config, name, without):
    """Refuse values by which an object would read or write other files.

    Args:
        config: dict, its saved values.
        name: str, the file that describes it.
        without: tuple of str, values that no file may hold.
    """
    file = config.get("config_file", name)
    if file != name:
        raise ValueError(
            f"`config_file` must be {name!r}. Received: "
            f"config_file={shown(file)}"
        )
    for key in without:
        if config.get(key) is not None:
            raise ValueError(
                f"`{key}` must not stand here: it lies in files of its own. "
                f"Received: {key}={shown(config[key])}"
            )


def _is_dtype(spec):
    cls = getattr(keras.dtype_policies, str(spec["class_name"]), None)
    return (
        isinstance(cls, type)
        and spec.get("module") in ("keras", "keras.dtype_policies")
        and spec.get("registered_name") is None
    )


def _is_users(spec):
    cls = registered(spec)
    return (
        isinstance(cls, type)
        and cls.__module__.partition(".")[0] not in _LIBRARIES
    )


def fewest_weights(config):
    """The number of weights that a backbone's layers have at least.

    Args:
        config: dict, values of a `BridgeTowerBackbone`.

    Returns:
        `(weights, layers)`.
    """
    parts = [config["image_encoder"], config["text_encoder"]]
    weights, layers = 0, 0
    for part in (config, *(part["config"] for part in parts)):
        width, count = part.get("hidden_dim", 0), part.get("num_layers", 0)
        rows = part.get("vocabulary_size", 0)
        if all(isinstance(n, int) for n in (width, count, rows)):
            # Queries, keys, values and outputs of one attention layer.
            weights += count * 4 * width**2 + rows * width
            layers += count
    return weights, layers
