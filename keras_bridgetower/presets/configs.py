"""Checks of configurations in preset files: known classes, allowed sizes.

Keras imports and calls functions that a configuration names. This module only
looks up classes that are already registered with Keras, and accepts only
subclasses of the expected class.
"""

import keras

from keras_bridgetower.checks import is_integer
from keras_bridgetower.presets.errors import short_text

# Libraries that save objects with plain values and dtypes only; their classes
# may not be nested in other objects.
_LIBRARIES = ("keras", "keras_hub", "keras_bridgetower", "builtins")
# Largest allowed values, by the end of their names. A model with larger ones
# would use up memory or time before an error occurs.
_LARGEST = {
    "num_layers": 1_000,
    "num_heads": 10_000,
    "hidden_dim": 100_000,
    "projection_dim": 100_000,
    "intermediate_dim": 1_000_000,
    "mlp_dim": 1_000_000,
    "image_shape": 4_096,
    "image_size": 4_096,
    "hidden_scale": 100,
    "sequence_length": 100_000,
    "vocabulary_size": 10_000_000,
    "num_classes": 10_000_000,
}
_DEEPEST = 50
# The smallest weights have 4 bits.
WEIGHTS_IN_A_BYTE = 2


def class_and_values(spec, base):
    """Return the class that a configuration names, and its arguments.

    Args:
        spec: dict, an object as Keras serializes it.
        base: the expected class, or a superclass of it.

    Returns:
        `(class, dict)`. The arguments are not checked yet, see
        `check_values`.

    Raises:
        ValueError: another class, or no configuration of an object.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), dict):
        raise ValueError(
            "An object must be saved with its class and `config`. Received: "
            f"{short_text(spec)}"
        )
    cls = registered(spec)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(
            f"The class must be {base.__name__}, or a subclass of it that was "
            "registered by `keras.saving.register_keras_serializable` before. "
            "Received: registered_name="
            f"{short_text(spec.get('registered_name'))}"
        )
    return cls, spec["config"]


def registered(spec):
    """Return the registered class that a configuration names, or None."""
    name = spec.get("registered_name")
    found = keras.saving.get_registered_object(name) if _is_name(name) else None
    # Keras gives some values of `class_name` another meaning, so it must be
    # the name of the class.
    return found if spec.get("class_name") == _class_name(found) else None


def _is_name(name):
    return isinstance(name, str) and 0 < len(name) < 200


def _class_name(cls):
    return cls.__name__ if isinstance(cls, type) else object()


def check_values(values, name="config", depth=0):
    """Reject values that a saved object cannot have.

    Args:
        values: the values of a configuration: plain values, and dicts that
            describe objects.
        name: str, the key of the values.
        depth: int, depth of nesting.

    Raises:
        ValueError: objects that are neither dtypes nor registered by the
            user, too large numbers, or too deep nesting.
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
                f"{short_text(values['class_name'])}, module="
                f"{short_text(values.get('module'))}, registered_name="
                f"{short_text(values.get('registered_name'))}"
            )
        for key, value in values.items():
            check_values(value, key, depth + 1)
    elif isinstance(values, (list, tuple)):
        for value in values:
            check_values(value, name, depth + 1)
    elif isinstance(values, (int, float)):
        _check_size(name, values)


def _check_size(name, value):
    """Reject a number that is larger than its name allows."""
    for end, largest in _LARGEST.items():
        if name.endswith(end) and not abs(value) <= largest:
            raise ValueError(
                f"`{name}` must be at most {largest:,}. Received: "
                f"{name}={short_text(value)}"
            )


def check_own_file(config, name, without):
    """Reject values that would make an object read or write other files.

    Args:
        config: dict, the saved values of the object.
        name: str, the file that describes the object.
        without: tuple of str, keys that no file may have.
    """
    file = config.get("config_file", name)
    if file != name:
        raise ValueError(
            f"`config_file` must be {name!r}. Received: "
            f"config_file={short_text(file)}"
        )
    for key in without:
        if config.get(key) is not None:
            raise ValueError(
                f"`{key}` must not be set: it has files of its own. "
                f"Received: {key}={short_text(config[key])}"
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


def _patches(config):
    """Return the number of patches of an image encoder."""
    sides, patch = config.get("image_shape"), config.get("patch_size")
    if not (isinstance(sides, list) and len(sides) == 3):
        return 0
    if not all(map(is_integer, (*sides, patch))) or patch < 1:
        return 0
    return (sides[0] // patch) * (sides[1] // patch)


def fewest_weights(config):
    """Compute a lower bound for the number of weights of a backbone.

    Args:
        config: dict, constructor arguments of a `BridgeTowerBackbone`.

    Returns:
        `(weights, layers)`: the bound, and the number of layers.
    """
    parts = [config["image_encoder"], config["text_encoder"]]
    weights, layers = 0, 0
    for part in (config, *(part["config"] for part in parts)):
        width, count = part.get("hidden_dim", 0), part.get("num_layers", 0)
        inner = part.get("intermediate_dim", part.get("mlp_dim", 0))
        rows = part.get("vocabulary_size", 0)
        positions = part.get("max_sequence_length", 0)
        if all(map(is_integer, (width, count, inner, rows, positions))):
            # Each layer has four matrices of attention and two after it; then
            # the embeddings of tokens and of positions.
            weights += count * (4 * width + 2 * inner) * width
            weights += (rows + positions + _patches(part)) * width
            layers += count
    return weights, layers
