"""Keywords of `from_preset`: every one is known, or refused by name."""

import inspect

# What every `from_preset` takes beside the preset.
OF_PRESETS = ("revision",)


def check_keywords(cls, keywords, others=(), without=()):
    """Refuse keywords that a class's `from_preset` does not take.

    Args:
        cls: the class.
        keywords: dict, those that a caller passed and no parameter names.
        others: tuple of str, parameters that `from_preset` names itself.
        without: tuple of str, constructor values that come from the preset.

    Raises:
        TypeError: an unknown keyword; the error lists those allowed.
    """
    allowed = constructor_values(cls) - set(without)
    unknown = sorted(set(keywords) - allowed)
    if unknown:
        name = unknown[0]
        raise TypeError(
            f"`{cls.__name__}.from_preset` takes the keywords "
            f"{', '.join(sorted(allowed | set(others)))}. Received: "
            f"{name}={keywords[name]!r:.200}"
        )


def constructor_values(cls):
    """The names of a class's constructor values, and `name`."""
    names = {"name"}
    for base in cls.__mro__:
        # What Keras takes beside `name`, a preset's objects have no use for.
        if base.__module__.partition(".")[0] in ("keras", "keras_hub"):
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in _NAMED}
        # Without one, nothing reaches the next class.
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


_NAMED = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)
