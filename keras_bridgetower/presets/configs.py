"""Checks of configurations in preset files: known classes, allowed sizes.

Keras imports and calls functions that a configuration names. This module
accepts only classes that are already registered with Keras and are subclasses
of the expected class.
"""

import keras

from keras_bridgetower.presets.errors import short_text

# Libraries whose saved objects have only plain values and dtypes; their classes
# must not be nested in other objects.
_LIBRARIES = ("keras", "keras_hub", "keras_bridgetower", "builtins")
MOST_LAYERS = 100
# Largest allowed values, by the end of their names. A model with larger ones
# would use up memory or time before its weights are counted.
_LARGEST = {
    "num_layers": MOST_LAYERS,
    "num_repeats": MOST_LAYERS,
    "depth_coefficients": MOST_LAYERS,
    "image_shape": 4_096,
    "input_shape": 4_096,
    "image_size": 4_096,
    "sequence_length": 100_000,
}
# The smallest weights have 4 bits.
WEIGHTS_IN_A_BYTE = 2


def class_and_values(spec, base):
    """Return the class that a configuration names, and its unchecked arguments.

    Args:
        spec: dict, an object as Keras serializes it.
        base: the expected class, or a superclass of it.

    Raises:
        Exception: of any type: another class, or not an object.
    """
    cls = registered(spec)
    if not issubclass(cls, base):
        raise ValueError(
            f"The class must be {base.__name__} or a subclass that you "
            f"registered. Received: {short_text(spec.get('registered_name'))}"
        )
    return cls, dict(spec["config"])


def registered(spec):
    """Return the registered class that a configuration names, or None."""
    found = keras.saving.get_registered_object(spec.get("registered_name"))
    # It must be the name of the class: Keras gives some others a meaning.
    named = isinstance(found, type) and found.__name__ == spec.get("class_name")
    return found if named else None


def check_values(values, name="config"):
    """Reject values that a saved object cannot have.

    Args:
        values: the values of a configuration: plain values, and dicts that
            describe objects.
        name: str, the key of the values.

    Raises:
        ValueError: objects that are neither dtypes nor registered by the
            user, or too large numbers.
    """
    if isinstance(values, dict):
        if "class_name" in values and not (
            _is_dtype(values) or _is_users(values)
        ):
            raise ValueError(
                f"`{name}` must hold plain values, dtypes and objects of "
                f"registered classes. Received: {short_text(values)}"
            )
        for key, value in values.items():
            check_values(value, key)
    elif isinstance(values, (list, tuple)):
        for value in values:
            check_values(value, name)
    elif isinstance(values, (int, float)):
        for end, largest in _LARGEST.items():
            if name.endswith(end) and not abs(values) <= largest:
                raise ValueError(f"`{name}` must be at most {largest:,}.")


def check_own_file(config, name, without):
    """Reject values that would make an object read or write other files.

    Args:
        config: dict, the saved values of the object.
        name: str, the file that describes the object.
        without: tuple of str, keys that must not be set.
    """
    if config.get("config_file", name) != name:
        raise ValueError(f"`config_file` must be {name!r}.")
    for key in without:
        if config.get(key) is not None:
            raise ValueError(f"`{key}` must not be set: it has its own files.")


def _is_dtype(spec):
    cls = getattr(keras.dtype_policies, str(spec["class_name"]), None)
    return (
        isinstance(cls, type)
        and spec.get("module") in ("keras", "keras.dtype_policies")
        and spec.get("registered_name") is None
    )


def _is_users(spec):
    cls = registered(spec)
    return cls and cls.__module__.partition(".")[0] not in _LIBRARIES
