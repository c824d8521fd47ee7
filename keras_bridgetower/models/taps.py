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


def check_mask(padding_mask, states):
    """Refuse a mask of another shape than the text, which might be broadcast.

    Args:
        padding_mask: tensor `(batch, tokens)`, or None.
        states: list of tensors `(batch, tokens, width)`, the text states.
    """
    if padding_mask is None:
        return
    mask, text = tuple(padding_mask.shape), tuple(states[0].shape)[:2]
    known = zip(mask, text, strict=False)
    if len(mask) != 2 or any(a != b for a, b in known if None not in (a, b)):
        raise ValueError(
            "`padding_mask` must be (batch, tokens), as the states of the "
            f"text. Received: padding_mask of shape {mask}, text states of "
            f"batch and tokens {text}"
        )


def check_states(taps, text_states, image_states):
    """Refuse lists of states that do not fit the taps, or each other.

    Args:
        taps: tuple, as `resolve_taps` returns it.
        text_states, image_states: lists of tensors `(batch, tokens, width)`.
    """
    count = sum(tap is not None for tap in taps)
    given = {"text_states": text_states, "image_states": image_states}
    batch = None
    for name, states in given.items():
        if not isinstance(states, (list, tuple)) or len(states) != count:
            many = len(states) if hasattr(states, "__len__") else "no list"
            raise ValueError(
                f"`{name}` must be a list of {count} tensors (batch, tokens, "
                f"width), one for each tap of {taps}. Received: {many}"
            )
        for state in states:
            sizes = tuple(state.shape)[:2]
            first = tuple(states[0].shape)[:2]
            batch = sizes[0] if batch is None else batch
            pairs = [(sizes[0], batch), *zip(sizes, first, strict=True)]
            if any(a != b for a, b in pairs if None not in (a, b)):
                shapes = [tuple(s.shape) for s in (*text_states, *image_states)]
                raise ValueError(
                    "`text_states` and `image_states` must be of one batch, "
                    "and those of a tower of as many tokens each. Received: "
                    f"shapes {shapes}"
                )
