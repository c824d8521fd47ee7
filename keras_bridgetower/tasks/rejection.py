"""Reject pictures and questions that a task does not know."""

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_finite
from keras_bridgetower.metrics import calibration

# From logits to scores that are higher for better known inputs.
SCORES = {"energy": lambda logits: -calibration.energy(logits)}
_KEYS = ("kind", "threshold")


def checked_rejection(rejection):
    """Return a rule as plain values, or None for None.

    Args:
        rejection: dict of `"kind"`, a name in `SCORES`, and `"threshold"`, a
            number. What scores below it is unknown.

    Raises:
        ValueError: other keys or values.
    """
    if rejection is None:
        return None
    if not isinstance(rejection, dict) or {*rejection} != {*_KEYS}:
        raise ValueError(
            f"`rejection` must be a dict with the keys {list(_KEYS)}. "
            f"Received: rejection={rejection!r:.200}"
        )
    kind, threshold = (rejection[key] for key in _KEYS)
    check_choice("kind", kind, tuple(SCORES))
    check_finite("threshold", threshold)
    return {"kind": kind, "threshold": float(threshold)}


def known_rows(rejection, logits):
    """Return whether each row of logits is known.

    Args:
        rejection: what `checked_rejection` returned.
        logits: array `(rows, classes)`.

    Returns:
        list of bool; of None without a rule.
    """
    if rejection is None:
        return [None] * len(logits)
    scores = SCORES[rejection["kind"]](logits)
    return (scores >= rejection["threshold"]).tolist()
