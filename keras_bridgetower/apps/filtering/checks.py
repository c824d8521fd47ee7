"""Checks of the arguments of a filter, before a model is opened."""

import os
import pathlib

from keras_bridgetower.apps.filtering.scoring import SCORES


def checked_rule(scores, by, keep_share, threshold):
    """The score that decides, once the arguments were checked."""
    scores = tuple(scores)
    if not scores or len(set(scores)) < len(scores) or set(scores) - {*SCORES}:
        raise ValueError(
            f"`scores` must be one or both of {', '.join(SCORES)}. "
            f"Received: scores={scores!r}"
        )
    by = scores[0] if by is None else by
    if by not in scores:
        raise ValueError(
            f"`by` must be one of the scores that are made, "
            f"{', '.join(scores)}. Received: by={by!r}"
        )
    if (keep_share is None) == (threshold is None):
        raise ValueError(
            "Either `keep_share` or `threshold` must be given. Received: "
            f"keep_share={keep_share!r}, threshold={threshold!r}"
        )
    if keep_share is not None and not 0 < keep_share <= 1:
        raise ValueError(
            "`keep_share` must be above 0 and at most 1, the share of the "
            f"samples that is kept. Received: keep_share={keep_share!r}"
        )
    return by


def check_place(source, out):
    """Refuse to write what is kept into the data set that is filtered."""
    source = pathlib.Path(os.path.abspath(source))
    if out == source or source in out.parents:
        raise ValueError(
            "OUT must not lie in SOURCE, whose files would become part of it. "
            f"Received: {str(out)!r} in {str(source)!r}"
        )
