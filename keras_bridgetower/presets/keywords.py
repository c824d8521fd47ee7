"""Checks the keywords of `from_preset` and of the constructors."""

import inspect

# Keywords that every `from_preset` takes.
OF_PRESETS = ("revision",)
# Arguments of base classes that each task gives itself.
OF_CLASSES = ("heads", "head")


def check_keywords(cls, keywords, others=(), without=()):
    """Refuse keywords that a class's `from_preset` does not take.

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
    said = f"`{cls.__name__}.from_preset` takes the keywords"
    _refuse_others(keywords, allowed, said, allowed | set(others))


def check_constructor(model, keywords, allowed):
    """Refuse arguments that no class of a model takes: Keras drops them.

    Args:
        model: the model that is made.
        keywords: dict, what is left of the `**kwargs` of its constructor.
        allowed: tuple of str, those that Keras and KerasHub take.

    Raises:
        TypeError: an unknown argument; the error lists the allowed ones.
    """
    cls = type(model)
    names = constructor_values(cls) - set(OF_CLASSES) | set(allowed)
    said = f"`{cls.__name__}` takes the arguments"
    _refuse_others(keywords, set(allowed), said, names)


def _refuse_others(keywords, allowed, said, names):
    """Raise for the first keyword that is not allowed, and list `names`."""
    for name in sorted(set(keywords) - allowed):
        raise TypeError(
            f"{said} {', '.join(sorted(names))}. Received: "
            f"{name}={keywords[name]!r:.200}"
        )


def constructor_values(cls):
    """The names of a class's constructor arguments, and `name`."""
    names = {"name"}
    for base in cls.__mro__:
        # Of Keras' own arguments, presets use only `name`.
        if base.__module__.partition(".")[0] in ("keras", "keras_hub"):
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in _NAMED}
        # Without `**kwargs`, no argument is passed on to the next class.
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


_NAMED = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)
