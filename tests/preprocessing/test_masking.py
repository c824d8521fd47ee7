"""Masking: the rules by statistics, and what can never happen."""

import numpy as np
import pytest
from builders import FASTEST

from keras_bridgetower.preprocessing.masking import TokenMasking
from keras_bridgetower.preprocessing.masking import WholeWordMasking

pytestmark = FASTEST
START, PAD, END, UNKNOWN, MASK = SPECIAL = range(5)
VOCABULARY = 100
LENGTH = 20
VALUES = {
    "mask_token_id": MASK,
    "special_token_ids": SPECIAL,
    "vocabulary_size": VOCABULARY,
    "sequence_length": LENGTH,
}
# Ids from 80 continue a word.
WORDS = {"continuation_ids": range(80, 100), "break_ids": (START, END)}


def tokens(**values):
    return TokenMasking(**VALUES | values)


def words(**values):
    return WholeWordMasking(**VALUES | WORDS | values)


def batch(count, lengths=(3, LENGTH), seed=0):
    """Texts `<s> ... </s> <pad> ...` with an unknown token now and then."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCABULARY, (count, LENGTH))
    ids[rng.random(ids.shape) < 0.05] = UNKNOWN
    ends = rng.integers(lengths[0], lengths[1] + 1, count) - 1
    place = np.arange(LENGTH)
    ids[:, 0] = START
    ids[place == ends[:, None]] = END
    ids[place > ends[:, None]] = PAD
    return ids.astype("int32"), (ids != PAD).astype("int32")


def chosen_of(made):
    """Bool array `(batch, T)` of the chosen places."""
    chosen = np.zeros(made["token_ids"].shape, bool)
    rows, slots = np.nonzero(made["mask_weights"])
    chosen[rows, made["mask_positions"][rows, slots]] = True
    return chosen


def near(values, expected, variance=None):
    """The mean of many draws lies within five standard errors."""
    variance = np.var(values) if variance is None else variance
    return abs(np.mean(values) - expected) < 5 * np.sqrt(variance / len(values))


@pytest.mark.parametrize("masking", [tokens(), words()])
def test_outputs(masking):
    ids, mask = batch(500)
    made = masking(ids, mask, seed=1)
    slots = (500, masking.max_masks)
    shapes = {name: (v.shape, v.dtype.name) for name, v in made.items()}
    assert shapes == {
        "token_ids": (ids.shape, "int32"),
        "mask_positions": (slots, "int32"),
        "mask_ids": (slots, "int32"),
        "mask_weights": (slots, "float32"),
    }
    weights, places = made["mask_weights"], made["mask_positions"]
    assert set(np.unique(weights)) == {0, 1}
    # Full slots first, places rising, left-over slots all zero.
    assert (np.diff(weights, axis=1) <= 0).all()
    both = weights[:, 1:] == 1
    assert (np.diff(places, axis=1)[both] > 0).all()
    for name in ("mask_positions", "mask_ids"):
        assert (made[name][weights == 0] == 0).all()
    originals = np.take_along_axis(ids, places, axis=1)
    assert (made["mask_ids"] == originals)[weights == 1].all()
    # What was not chosen stands as it stood.
    assert (made["token_ids"] == ids)[~chosen_of(made)].all()


@pytest.mark.parametrize("masking", [tokens(rate=1.0), words(rate=0.9)])
def test_special_tokens_are_never_chosen(masking):
    ids, mask = batch(2000)
    chosen = chosen_of(masking(ids, mask, seed=2))
    assert not chosen[np.isin(ids, SPECIAL)].any()
    assert not chosen[mask == 0].any()
    # Padding is known by the mask too, whatever id stands there.
    other = np.where(ids == PAD, 50, ids)
    assert not chosen_of(masking(other, mask, seed=2))[mask == 0].any()


def test_tokens_are_chosen_one_by_one():
    ids, mask = batch(40_000, lengths=(LENGTH, LENGTH), seed=3)
    chosen = chosen_of(tokens()(ids, mask, seed=4))
    allowed = ~np.isin(ids, SPECIAL)
    for place in range(1, LENGTH - 1):
        hits = chosen[:, place][allowed[:, place]]
        assert near(hits, 0.15, 0.15 * 0.85)
    # Independent: neighbours are chosen together at the product of the rates,
    # and a full text has none at the power.
    pairs = allowed[:, 1:] & allowed[:, :-1]
    together = (chosen[:, 1:] & chosen[:, :-1])[pairs]
    assert near(together, 0.15**2)
    full = allowed.sum(1) == LENGTH - 2
    assert near(~chosen[full].any(1), 0.85 ** (LENGTH - 2))


@pytest.mark.parametrize("masking", [tokens(rate=0.3), words(rate=0.3)])
def test_what_stands_at_chosen_places(masking):
    ids, mask = batch(40_000, seed=5)
    made = masking(ids, mask, seed=6)
    chosen = chosen_of(made)
    new, old = made["token_ids"][chosen], ids[chosen]
    by_chance = 0.1 / VOCABULARY
    assert near(new == MASK, 0.8 + by_chance)
    assert near(new == old, 0.1 + by_chance)
    # Random tokens come from the whole vocabulary, special ones included.
    counts = np.bincount(new[(new != old)], minlength=VOCABULARY)
    expected = by_chance * len(new)
    rest = np.delete(counts, MASK)
    assert (np.abs(rest - expected) < 6 * np.sqrt(expected)).all()


def test_fewer_slots_keep_a_random_part():
    ids, mask = batch(20_000, lengths=(LENGTH, LENGTH))
    ids[ids == UNKNOWN] = 7
    made = tokens(rate=0.5, max_masks=3)(ids, mask, seed=0)
    assert made["mask_positions"].shape == (20_000, 3)
    chosen = chosen_of(made)
    assert chosen.sum(1).max() == 3
    # No place is favoured.
    for place in range(1, LENGTH - 1):
        assert near(chosen[:, place], chosen.sum(1).mean() / (LENGTH - 2))
    # A place that is not kept is left as it was, not hidden without a label.
    assert (made["token_ids"] == ids)[~chosen].all()


def groups(row):
    """Words of one text as lists of places."""
    found = []
    for place, token in enumerate(row):
        if token in (START, END):
            continue
        if token >= 80 and found:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def slow_words(row, rng, rate):
    """The rule of the reference, word by word."""
    candidates = groups(row)
    rng.shuffle(candidates)
    budget = max(1, int(round(rate * len(row))))
    covered = []
    for group in candidates:
        if len(covered) >= budget:
            break
        if len(covered) + len(group) > budget:
            continue
        covered += group
    return [place for place in covered if row[place] not in SPECIAL]


@pytest.mark.parametrize("rate, budget", [(0.15, 3), (0.01, 1), (0.5, 10)])
def test_words_are_chosen_whole(rate, budget):
    masking = words(rate=rate)
    assert masking.max_masks == budget
    ids, mask = batch(1000, seed=8)
    chosen = chosen_of(masking(ids, mask, seed=9))
    assert chosen.sum(1).max() == budget
    for row, hits in zip(ids.tolist(), chosen, strict=True):
        for group in groups(row):
            kept = [place for place in group if row[place] not in SPECIAL]
            assert hits[kept].all() or not hits[kept].any()


def test_words_are_as_likely_as_by_the_slow_rule():
    # Two words of 1 and 3 pieces, one of 4 that never fits, an unknown, pads.
    row = [0, 10, 20, 80, 81, 30, 82, 83, 84, 3, 11, 2] + [PAD] * 8
    count = 20_000
    ids = np.array([row] * count)
    masking = words()
    chosen = chosen_of(masking(ids, ids != PAD, seed=1))
    rng = np.random.default_rng(2)
    slow = np.zeros_like(chosen)
    for hits in slow:
        hits[slow_words(row, rng, 0.15)] = True
    assert not chosen[:, 5:9].any() and not slow[:, 5:9].any()
    for place in (1, 2, 3, 4, 10):
        assert near(chosen[:, place], slow[:, place].mean(), 0.5)
        assert 0.05 < chosen[:, place].mean() < 0.4
    # Padding takes part of the budget, down to nothing.
    assert near(~chosen.any(1), (~slow.any(1)).mean(), 0.5)
    assert (~chosen.any(1)).mean() > 0.2


@pytest.mark.parametrize(
    "name, value", [("rate", 15), ("random_share", 0.3), ("max_masks", 21)]
)
def test_bad_values(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        tokens(**{name: value})
