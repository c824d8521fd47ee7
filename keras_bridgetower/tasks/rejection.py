"""Reject pictures and questions that a task does not know."""

import numpy as np

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_finite
from keras_bridgetower.metrics import calibration

# From logits to scores that are higher for better known inputs.
SCORES = {"energy": lambda logits: -calibration.energy(logits)}
_NEEDED, _OPTIONAL = {"kind", "threshold"}, {"temperature"}


def checked_rejection(rejection):
    """Return a rule as plain values, or None for None.

    Args:
        rejection: dict of `"kind"`, a name in `SCORES`, and `"threshold"`, a
            number. What scores below it is unknown. `"temperature"`, if it is
            there, divided the logits after the threshold was chosen.

    Raises:
        ValueError: other keys or values.
    """
    if rejection is None:
        return None
    if not isinstance(rejection, dict) or {*rejection} - _OPTIONAL != _NEEDED:
        raise ValueError(
            "`rejection` must be a dict with the keys 'kind' and 'threshold'. "
            f"Received: rejection={rejection!r:.200}"
        )
    rule = dict(rejection)
    check_choice("kind", rule["kind"], tuple(SCORES))
    for key in rule.keys() - {"kind"}:
        check_finite(key, rule[key])
        rule[key] = float(rule[key])
    check_above_zero("temperature", rule.get("temperature", 1.0))
    return rule


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
    logits = np.asarray(logits) * rejection.get("temperature", 1.0)
    scores = SCORES[rejection["kind"]](logits)
    return (scores >= rejection["threshold"]).tolist()
