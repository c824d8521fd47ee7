"""Hides installed presets, but for the drawings, when it is imported.

They would be opened by default, and the tests ask the drawings. It comes before
the package, which reads the distributions once. Those that tests add are seen.
"""

import importlib.metadata

_GROUP = "keras_bridgetower.presets"
_find = importlib.metadata.distributions
_HIDDEN = {
    point.dist.name
    for point in importlib.metadata.entry_points(group=_GROUP)
    if point.name != "drawings"
}


def _distributions(**given):
    return (one for one in _find(**given) if one.name not in _HIDDEN)


if _HIDDEN:
    importlib.metadata.distributions = _distributions
