"""Checks of single arguments: a name among some, a number."""

import numbers


def check_choice(name, value, allowed):
    """Refuse a value that is not in `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {list(allowed)}. "
            f"Received: {name}={value!r}"
        )


def check_count(name, value):
    """Refuse a value that is not an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"`{name}` must be an integer from 1. Received: {name}={value!r}"
        )


def check_at_most(name, value, most, of):
    """Refuse a value that is not an integer from 1 to `most`.

    Args:
        name: str, the argument.
        value: what was given for it.
        most: int.
        of: str, what `most` is the number of.
    """
    if not is_integer(value) or not 1 <= value <= most:
        raise ValueError(
            f"`{name}` must be from 1 to {most}, the number of {of}. "
            f"Received: {name}={value!r}"
        )


def check_share(name, value):
    """Refuse a value that is not a number from 0 to below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be a number from 0 to below 1. "
            f"Received: {name}={value!r}"
        )


def check_above_zero(name, value):
    """Refuse a value that is not a number above 0."""
    if not _is_number(value) or not value > 0:
        raise ValueError(
            f"`{name}` must be a number above 0. Received: {name}={value!r}"
        )


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value):
    """Whether a value is an integer, also NumPy's, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


class MissingMethod(TypeError):
    """A task class that lacks a method which every task defines.

    Args:
        name: str, of the class.
        method: str, what it lacks.
    """

    def __init__(self, name, method):
        super().__init__(
            f"`{name}` must define `{method}`; `docs/own_work.md` has an "
            f"example. Received: {name} without {method}"
        )
