"""Checks of what the fusion is called with: states, mask, outputs, row."""

from keras_bridgetower.checks import is_integer

OUTPUTS = ("text", "image", "pooled")
# Rows of the type embedding.
TEXT_ROW, IMAGE_ROW, SECOND_IMAGE_ROW, NUM_TYPE_ROWS = 0, 1, 2, 3


def check_outputs(outputs):
    """Refuse what is no tuple or list of some of `OUTPUTS`."""
    if not isinstance(outputs, (tuple, list)) or not set(outputs) <= set(
        OUTPUTS
    ):
        raise ValueError(
            f"`outputs` must be a tuple of some of {list(OUTPUTS)}. "
            f"Received: outputs={outputs!r}"
        )


def check_image_row(image_row):
    """Refuse what is no row of the type embedding."""
    if not is_integer(image_row) or not 0 <= image_row < NUM_TYPE_ROWS:
        raise ValueError(
            "`image_row` must be a row of the type embedding, from 0 to "
            f"{NUM_TYPE_ROWS - 1}. Received: image_row={image_row!r}"
        )


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
