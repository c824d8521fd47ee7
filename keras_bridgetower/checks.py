"""Checks of single values from outside: one clear error each."""


def check_choice(name, value, allowed):
    """Refuse a value that is none of the named ones."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {list(allowed)}. "
            f"Received: {name}={value!r}"
        )


def check_count(name, value):
    """Refuse what is no integer from 1."""
    if type(value) is not int or value < 1:
        raise ValueError(
            f"`{name}` must be an integer from 1. Received: {name}={value!r}"
        )
