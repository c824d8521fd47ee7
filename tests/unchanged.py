"""Finds attributes of the frameworks that the package has replaced.

Import it before the package. On PyTorch a process is a fork of one that has
imported it, so there only what is replaced later, or by code of the package,
is found.
"""

import sys

import keras
import keras_hub

PACKAGE = "keras_bridgetower"
LIBRARIES = ("keras", "keras_hub", "tensorflow", "jax", "torch")
DESCRIPTORS = (property, staticmethod, classmethod)
# Names that Python itself sets on a class after it was made.
OF_PYTHON = {"__abstractmethods__", "_abc_impl", "__doc__", "__signature__"}


def is_of(value, *roots):
    return str(getattr(value, "__module__", "")).split(".")[0] in roots


def is_code(value):
    return callable(value) or isinstance(value, DESCRIPTORS)


def attributes():
    """Return attributes of loaded modules and their classes by owner."""
    found, seen = {}, set()
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] not in LIBRARIES or module is None:
            continue
        for name, value in list(vars(module).items()):
            found[module_name, name] = value
            if not isinstance(value, type) or id(value) in seen:
                continue
            seen.add(id(value))
            if is_of(value, *LIBRARIES):
                owner = f"{value.__module__}.{value.__qualname__}"
                for inner, attribute in list(vars(value).items()):
                    found[owner, inner] = attribute
    return found


assert keras.config.backend() == "torch" or PACKAGE not in sys.modules
# Loaded, so that attributes of their lazy modules are compared, too.
assert keras_hub.models.Backbone and keras.Model
BEFORE = attributes()


def replaced():
    """List code that was replaced, removed, or added by the package.

    Flags, counters and tables are state of the process and may change.
    """
    after = attributes()
    changed = [
        key
        for key, value in BEFORE.items()
        if is_code(value)
        and after.get(key) is not value
        and key[1] not in OF_PYTHON
    ]
    start = {} if keras.config.backend() == "torch" else BEFORE
    changed += [
        key
        for key, value in after.items()
        if key not in start
        and is_code(value)
        and is_of(getattr(value, "__func__", value), PACKAGE)
    ]
    # Code loaded in the meantime must not change either.
    BEFORE.update((key, after[key]) for key in after.keys() - BEFORE.keys())
    return sorted({*map(".".join, changed)})
