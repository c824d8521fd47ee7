"""Writes values as texts that identify them in data sets and runs.

The index of a data set and the checkpoints of a run store such texts. If a text
changed, shards would be written again and runs could not continue. The first
data sets used `repr`, and the texts still have its form. Classes of this
library fix their text in `WRITTEN_AS`, so that class and fields can be renamed.
"""

import re

from keras_bridgetower.checks import is_integer

_FIELD = re.compile(r"\{(\w+)\}")


def written(value):
    """Write a value as text.

    Args:
        value: any object. Its class may have `WRITTEN_AS`, a text with names
            of attributes in braces, which subclasses do not inherit.

    Returns:
        str, the `WRITTEN_AS` of the class with the values of the attributes,
        or the `repr`. NumPy's integers are written like Python's.

    Example:

    ```python
    written((Shuffled(16), 1))  # "(Shuffled(window=16), 1)"
    ```
    """
    kind = type(value)
    if kind in (tuple, list):
        parts = ", ".join(map(written, value))
        if kind is list:
            return f"[{parts}]"
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    if is_integer(value):
        return repr(int(value))
    form = vars(kind).get("WRITTEN_AS")
    if form is None:
        return repr(value)
    names = _FIELD.findall(form)
    return form.format(
        **{name: written(getattr(value, name)) for name in names}
    )


def written_without_places(value):
    """Return `written(value)` without memory addresses, for all processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", written(value))
