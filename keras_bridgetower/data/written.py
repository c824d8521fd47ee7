"""How values are written where data sets and runs must know them again.

The plan of a shard and the facts of a checkpoint hold such texts. They are
those of `repr` when the first data sets were written. A class of ours says its
own by `WRITTEN_AS`, so that a class or a field may be renamed: a changed text
would write shards again and refuse runs.
"""

import functools
import re

_FIELD = re.compile(r"\{(\w+)\}")


def written(value):
    """A value as text.

    Args:
        value: anything. A class may have `WRITTEN_AS`, a text with the names
            of attributes in braces; subclasses do not inherit it.

    Returns:
        str: `WRITTEN_AS` filled in, and otherwise the `repr`.

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
    form = vars(kind).get("WRITTEN_AS")
    if form is None:
        return repr(value)
    texts, names = _parts(form)
    fields = [written(getattr(value, name)) for name in names]
    return "".join(
        part for pair in zip(texts, [*fields, ""], strict=True) for part in pair
    )


def written_without_places(value):
    """As `written`, without addresses in memory: the same in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", written(value))


@functools.lru_cache(100)
def _parts(form):
    """The texts of a form, and the names between them."""
    parts = _FIELD.split(form)
    return parts[::2], parts[1::2]
