"""Taps: which state of a tower feeds which cross-modal layer."""

from collections.abc import Iterable

from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer


def resolve_taps(taps, num_layers, bridge):
    """Check the taps and return them as a tuple with one entry per layer.

    Args:
        taps: sequence of negative ints and None, or None for the default.
        num_layers: int, number of cross-modal layers.
        bridge: the bridge, or None.

    Returns:
        tuple of `num_layers` entries.

    Raises:
        ValueError: taps that are not allowed.
    """
    check_count("num_layers", num_layers)
    two_tower = (-1,) + (None,) * (num_layers - 1)
    if taps is None:
        taps = two_tower if bridge is None else range(-num_layers, 0)
    if isinstance(taps, Iterable):
        taps = tuple(taps)
    received = f"Received: taps={taps}, num_layers={num_layers}"
    if not isinstance(taps, tuple) or len(taps) != num_layers:
        raise ValueError(
            "`taps` must hold one entry for each cross-modal layer, an index "
            f"or None. {received}"
        )
    # NumPy's integers cannot be written into a configuration.
    taps = tuple(int(tap) if is_integer(tap) else tap for tap in taps)
    if bridge is None and taps != two_tower:
        raise ValueError(
            f"With `bridge=None` `taps` must be {two_tower}: the last state "
            "enters the first layer and nothing else is tapped. Name a bridge "
            f"to tap more. {received}"
        )
    indices = [tap for tap in taps if tap is not None]
    rising = all(a < b for a, b in zip(indices, indices[1:], strict=False))
    if (
        taps[0] is None
        or not all(is_integer(i) and i < 0 for i in indices)
        or not rising
    ):
        raise ValueError(
            "`taps` must start with an index, and its indices must be "
            "negative (counted from the top) and rise, such as "
            f"(-3, -2, -1) or (-2, -1, None). {received}"
        )
    return taps
