"""Taps: which state of a tower feeds which cross-modal layer."""


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
    if not isinstance(num_layers, int) or num_layers < 1:
        raise ValueError(
            "`num_layers` must be a positive int. "
            f"Received: num_layers={num_layers!r}"
        )
    two_tower = (-1,) + (None,) * (num_layers - 1)
    if taps is None:
        taps = tuple(range(-num_layers, 0)) if bridge else two_tower
    taps = tuple(taps)
    received = f"Received: taps={taps}, num_layers={num_layers}"
    if len(taps) != num_layers:
        raise ValueError(
            "`taps` must hold one entry for each cross-modal layer, an index "
            f"or None. {received}"
        )
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
        or not all(isinstance(i, int) and i < 0 for i in indices)
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
