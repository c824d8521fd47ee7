"""Checks of arguments: choices, numbers, keywords."""

import importlib
import inspect
import math
import numbers

# Backends of Keras that run the encoders. OpenVINO's builds them, but fails in
# the image encoder, when a token is repeated for each picture.
BACKENDS = ("tensorflow", "jax", "torch")


def _require(right, name, value, must):
    if not right:
        raise ValueError(f"`{name}` must be {must}. Received: {name}={value!r}")


def check_choice(name, value, allowed):
    """Reject a value that is not in `allowed`."""
    _require(value in allowed, name, value, f"one of {list(allowed)}")


def check_count(name, value):
    """Reject a value that is not an integer of at least 1."""
    right = is_integer(value) and value >= 1
    _require(right, name, value, "an integer from 1")


def check_at_most(name, value, most, of):
    """Reject a value that is not an integer from 1 to `most`.

    Args:
        name: str, the argument.
        value: its value.
        most: int.
        of: str, the things of which `most` is the number.
    """
    right = is_integer(value) and 1 <= value <= most
    _require(right, name, value, f"from 1 to {most}, the number of {of}")


def check_share(name, value):
    """Reject a value that is not a number from 0 to below 1."""
    right = _is_number(value) and 0 <= value < 1
    _require(right, name, value, "a number from 0 to below 1")


def check_part(name, value):
    """Reject a value that is not a number above 0, to 1."""
    right = _is_number(value) and 0 < value <= 1
    _require(right, name, value, "a number above 0, to 1")


def check_above_zero(name, value):
    """Reject a value that is not a number above 0."""
    right = _is_number(value) and value > 0
    _require(right, name, value, "a number above 0")


def check_finite(name, value):
    """Reject a value that is not a finite number."""
    right = _is_number(value) and math.isfinite(value)
    _require(right, name, value, "a finite number")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value):
    """Return True for an integer, also of NumPy, and False for a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def load_extra(name, extra):
    """Import a module that comes with an extra of this package.

    Raises:
        ImportError: it is not installed; the error says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`{name}` is needed and not installed: "
            f"`pip install 'keras-bridgetower[{extra}]'`"
        ) from error


class MissingMethod(TypeError):
    """A task class lacks a method that every task defines.

    Args:
        name: str, name of the class.
        method: str, name of the missing method.
    """

    def __init__(self, name, method):
        super().__init__(
            f"`{name}` must define `{method}`; `docs/own_work.md` has an "
            f"example. Received: {name} without {method}"
        )


# Keywords that every `from_preset` takes.
OF_PRESETS = ("revision",)
# Arguments of base classes that each task gives itself.
OF_CLASSES = ("heads", "head")


class BuiltElsewhere(ValueError):
    """A task was built or compiled for other devices than the current ones."""

    def __init__(self, received):
        super().__init__(
            "A task must be built and compiled inside of `strategy.scope()`, "
            f"after `distribute`. Received: {received}"
        )


def check_keywords(cls, keywords, others=(), without=()):
    """Reject keywords that a class's `from_preset` does not take.

    Args:
        cls: the class.
        keywords: dict, the `**kwargs` of `from_preset`.
        others: tuple of str, its named parameters.
        without: tuple of str, constructor arguments that only the preset may
            give.

    Raises:
        TypeError: an unknown keyword; the error lists the allowed ones.
    """
    allowed = constructor_values(cls) - set(without)
    start = f"`{cls.__name__}.from_preset` takes the keywords"
    _check_allowed(keywords, allowed, start, allowed | set(others))


def check_constructor(model, keywords, allowed):
    """Reject arguments that no class of a model takes: Keras drops them.

    Args:
        model: the model that is created.
        keywords: dict, the rest of the `**kwargs` of its constructor.
        allowed: tuple of str, the arguments that Keras and KerasHub take.

    Raises:
        TypeError: an unknown argument; the error lists the allowed ones.
    """
    cls = type(model)
    names = constructor_values(cls) - set(OF_CLASSES) | set(allowed)
    start = f"`{cls.__name__}` takes the arguments"
    _check_allowed(keywords, set(allowed), start, names)


def _check_allowed(keywords, allowed, start, names):
    for name in sorted(set(keywords) - allowed):
        raise TypeError(
            f"{start} {', '.join(sorted(names))}. Received: "
            f"{name}={keywords[name]!r:.200}"
        )


def constructor_values(cls):
    """Return the names of a class's constructor arguments, and `name`."""
    names = {"name"}
    for base in cls.__mro__:
        # Of Keras' own arguments, presets use only `name`.
        if base.__module__.partition(".")[0] in ("keras", "keras_hub"):
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        named = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        )
        names |= {p.name for p in parameters if p.kind in named}
        # Without `**kwargs`, no argument is passed on to the next class.
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}
