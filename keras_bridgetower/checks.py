"""Checks of single arguments: a name among some, an integer, `top_k`."""


def check_choice(name, value, allowed):
    """Refuse a value that is not in `allowed`."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {list(allowed)}. "
            f"Received: {name}={value!r}"
        )


def check_count(name, value):
    """Refuse a value that is not an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise ValueError(
            f"`{name}` must be an integer from 1. Received: {name}={value!r}"
        )


def check_top_k(top_k, most, what):
    """Refuse to give more results than there are, `most` by `what`."""
    if not 1 <= top_k <= most:
        raise ValueError(
            f"`top_k` must be from 1 to {most}, the {what}. "
            f"Received: top_k={top_k}"
        )
