"""The score above which a share of all samples lies, in little memory."""

import math

import numpy as np

_HALF = 16


def of_share(scores, share):
    """The lowest score of the best share of all scores, exactly.

    All scores are read twice and none is kept: the first reading finds the
    upper half of the bits of the score, the second one the lower half.

    Args:
        scores: callable that returns an iterator of float32 arrays; NaN is
            passed over.
        share: float above 0 and up to 1. The number of scores is rounded, and
            at least 1.

    Returns:
        float, or None if there is no score. Scores that equal it may be more
        than the share.
    """
    upper = _counts(ordered >> _HALF for ordered in _all(scores))
    total = int(upper.sum())
    if not total:
        return None
    wanted = max(1, math.floor(share * total + 0.5))
    first, wanted = _place(upper, wanted)
    lower = _counts(
        ordered[ordered >> _HALF == first] & (2**_HALF - 1)
        for ordered in _all(scores)
    )
    last, _ = _place(lower, wanted)
    return float(_score_of(np.uint32(first << _HALF | last)))


def _all(scores):
    """Scores as integers of the same order."""
    for some in scores():
        some = np.asarray(some, "float32")
        # -0.0 equals 0.0.
        bits = (some[~np.isnan(some)] + np.float32(0)).view("uint32")
        yield np.where(bits >> 31, ~bits, bits | np.uint32(2**31))


def _score_of(ordered):
    bits = ordered ^ np.uint32(2**31) if ordered >> 31 else ~ordered
    return np.uint32(bits).view("float32")


def _counts(halves):
    counts = np.zeros(2**_HALF, "int64")
    for half in halves:
        counts += np.bincount(half, minlength=2**_HALF)
    return counts


def _place(counts, wanted):
    """The value at a place from the top, and its place among its equals."""
    above = np.cumsum(counts[::-1])
    step = int(np.searchsorted(above, wanted))
    before = int(above[step - 1]) if step else 0
    return len(counts) - 1 - step, wanted - before
