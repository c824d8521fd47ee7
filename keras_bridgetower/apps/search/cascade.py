"""Rerank within a time: merged tokens for many pictures, all for a few."""

import dataclasses
import math
import threading
import time

import numpy as np

MERGED, FULL = "merged", "full"
# Pictures per forward pass: one pass is how far a stage may miss its end.
BATCH = 8
# Of the image tokens, one in so many is left in the first stage.
_MERGED_TO = 4
# Share of the time that the first stage gets.
_FIRST = 0.6
# What passes take longer at most than those that were measured.
_SLOWER = 1.2


@dataclasses.dataclass(frozen=True)
class Pace:
    """Times of the fusion of `BATCH` pictures.

    Args:
        tokens: int, image tokens of the first stage.
        merged, full: float, seconds of a pass in each stage.
    """

    tokens: int
    merged: float
    full: float


class _Held:
    """The pace of models, which one thread measures."""

    def __init__(self):
        self.lock, self.pace = threading.Lock(), None


def is_measured(models, scorer):
    """Return whether the `Pace` of a scorer is known."""
    return _held(models, scorer).pace is not None


def find_pace(models, scorer):
    """Return the `Pace` of a scorer, measured once for texts of its width.

    Args:
        models: `SearchModels`.
        scorer: what `models.state_scorer` returns.
    """
    held = _held(models, scorer)
    with held.lock:
        if held.pace is None:
            held.pace = _measured(models, scorer)
        return held.pace


def _held(models, scorer):
    key = "pace", models.fusion, scorer.width
    return models.retrieval.inference.cached(key, _Held)


def _measured(models, scorer):
    layers, all_tokens, width = models.retrieval.image_states_shape
    states = np.random.default_rng(0).normal(
        size=(BATCH, layers, all_tokens, width)
    )
    states = states.astype("float32")
    tokens = max(2, all_tokens // _MERGED_TO)

    def seconds(image_tokens):
        taken = []
        # The first pass compiles.
        for _ in range(3):
            started = time.perf_counter()
            _scores(scorer, states, image_tokens)
            taken.append(time.perf_counter() - started)
        return max(taken[1:])

    merged = seconds(tokens) if tokens < all_tokens else np.inf
    return Pace(tokens, merged, seconds(None))


def most_pictures(pace, seconds):
    """Return how many pictures may be judged in a time, at most."""
    # A pass may take half as long as those that were measured.
    passes = 2 * seconds / min(pace.merged, pace.full)
    return BATCH * math.ceil(passes)


def rerank(scorer, states, pace, end, added=None, clock=time.perf_counter):
    """Judge pictures until a time, first the most similar ones.

    If there is no time to judge all by all their tokens, and merged tokens
    take less than half of it, more pictures are judged by merged tokens
    first, and the best of these by all.

    Args:
        scorer: what `SearchModels.state_scorer` returns.
        states: float32 array or `StoredStates`, by falling similarity.
        pace: `Pace`.
        end: float, the time of the clock at which to end.
        added: list of float, what counts beside each score; None for 0.
        clock: callable that returns the time in seconds.

    Returns:
        dict from the index of a picture to its stage, `"merged"` or `"full"`,
        and its score.
    """
    found, order = {}, list(range(len(states)))
    added = [0.0] * len(states) if added is None else added

    def judge(stage, tokens, cost, until):
        for start in range(0, len(order), BATCH):
            started = clock()
            if started + _SLOWER * cost > until:
                break
            some = order[start : start + BATCH]
            read = np.stack([states[i : i + 1][0] for i in some])
            scores = _scores(scorer, read, tokens)
            for index, score in zip(some, scores, strict=True):
                found[index] = stage, float(score)
            # Reading from a disk may take longer than the fusion.
            cost = max(cost, clock() - started)

    def place(index):
        if index not in found:
            return np.inf
        return -found[index][1] - added[index]

    left = end - clock()
    whole = -(-len(order) // BATCH) * pace.full * _SLOWER
    if whole > left and 2 * pace.merged < pace.full:
        judge(MERGED, pace.tokens, pace.merged, end - (1 - _FIRST) * left)
        order.sort(key=place)
    judge(FULL, None, pace.full, end)
    return found


def _scores(scorer, states, tokens):
    """Score up to `BATCH` pictures, always in a pass of that size."""
    last = len(states) - 1
    rows = np.minimum(np.arange(BATCH), last)
    return scorer(states[rows], tokens)[: last + 1]
