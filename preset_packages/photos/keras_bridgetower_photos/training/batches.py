"""Batches of kept scenes, with their texts as tokens."""

import itertools

import numpy as np
from keras_bridgetower_drawings.training.emoji.model import hide_tokens
from keras_bridgetower_drawings.training.reports import draw

from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training.asking import ask
from keras_bridgetower_photos.training.asking import of_sides
from keras_bridgetower_photos.training.model import text_features

SCENES, QUESTIONS = 32, 4  # Of a batch, and asked of each scene.
SHORT = 96  # The shortest questions, which are apart so that few are padded.
CAPTIONS = 16  # Of the first scenes; there again with hidden words.
SWAPPED = 0.5  # Share of the scenes whose classes are exchanged.
NEIGHBORS = 20
OUTLIERS = 8  # Pictures that show nothing of the world.
# How often a sort of question is drawn.
SHARES = {
    **dict.fromkeys(questions.SORTS, 1.0),
    **dict.fromkeys(("position", "side", "is relation", "depth"), 2.0),
    **dict.fromkeys(("noun", "kind", "place", "larger", "is place"), 1.5),
    **dict.fromkeys(("color", "is color"), 1.5),
}
# The same where places are learnt first, in scenes with left and right alone.
OF_PLACES = dict.fromkeys(("position", "side", "is left"), 1.0)
# Share of the tokens of a caption that are hidden, and at most so many.
HIDDEN, MOST_HIDDEN = 0.35, 8


class Batches:
    """Makes batches of one pool; half of the scenes are like the other half.

    Args:
        vectors: float `(scenes, width)`, the pictures in the space.
        apart: set of pairs of nouns that never name one thing.
        outliers: `Pool`, pictures that show nothing of the world.
        shares: dict from the sorts of questions that are asked to their
            frequencies.
        needed: sort of question without which scenes are left out, or None.
        swapped: float, share of the scenes whose classes are exchanged.
    """

    def __init__(
        self,
        pool,
        vectors,
        tokenizer,
        answers,
        apart,
        swaps,
        outliers,
        lists,
        shares=SHARES,
        needed=None,
        swapped=SWAPPED,
    ):
        self.lists, self.shares, self.swapped = lists, shares, swapped
        self.pool, self.tokenizer = pool, tokenizer
        self.swaps, self.outliers = swaps, outliers
        self.number = {answer: i for i, answer in enumerate(answers)}
        nouns = sorted({noun for row in pool.rows for noun in row["nouns"]})
        place = {noun: i for i, noun in enumerate(nouns)}
        shown = np.zeros((len(pool.rows), len(nouns)), bool)
        for i, row in enumerate(pool.rows):
            shown[i, [place[noun] for noun in row["nouns"]]] = True
        close = np.array([[(a, b) not in apart for b in nouns] for a in nouns])
        # For each scene, the nouns that could be said of it.
        self._said = (shown @ close) > 0
        self._shown = shown
        self._likeness = vectors.astype("float32") @ vectors.T
        wanted = {needed} if needed else set(shares)
        rng = np.random.default_rng(0)
        sorts = [{q[3] for q in _all_asked(row, rng)} for row in pool.rows]
        self._asked = np.array([bool(wanted & found) for found in sorts])
        self._named = [_naming(row) or row["captions"][:1] for row in pool.rows]

    def are_apart(self, rows, others):
        """Return whether no noun of one scene can be said of the other."""
        return ~((self._shown[rows] @ self._said[others].T) > 0)

    def order(self, rng):
        """Return the rows of an epoch: each scene, and one that is like it."""
        first = rng.permutation(np.flatnonzero(self._asked))
        second = np.array([self._like(row, rng) for row in first])
        half = SCENES // 2
        count = len(first) // half * half
        pairs = [rows[:count].reshape(-1, half) for rows in (first, second)]
        return np.concatenate(pairs, 1)

    def _like(self, row, rng):
        apart = self.are_apart([row], slice(None))[0] & self._asked
        likeness = np.where(apart, self._likeness[row], -9.0)
        near = np.argpartition(-likeness, NEIGHBORS)[:NEIGHBORS]
        return draw(near, rng)

    def make(self, rows, rng):
        """Return the features and labels of a batch."""
        swaps = self._swaps(rows, rng)
        told = list(map(self._told, rows, swaps, [rng] * len(rows)))
        for i, (row, found) in enumerate(zip(rows, told, strict=True)):
            # Too little can be said after the exchange: undo it.
            if found is None:
                swaps[i], told[i] = None, self._told(row, None, rng)
        said, wrong, asked = zip(*told, strict=True)
        asked = [question for several in asked for question in several]
        searched, listed = self.lists.draw(rng)
        # Longest questions first.
        longest = np.argsort([-len(text) for text, *_ in asked], kind="stable")
        asked = [asked[i] for i in longest]
        texts = [text for text, *_ in asked]
        captions = [*said[:CAPTIONS], *wrong[:CAPTIONS]]
        given = text_features(
            self.tokenizer, [*captions, *texts[:-SHORT], *searched]
        )
        short = text_features(self.tokenizer, texts[-SHORT:])
        masked, places, tokens = self._masked(
            {name: x[:CAPTIONS] for name, x in given.items()}, rng
        )
        states = [np.asarray(states[rows]) for states in self.pool.states]
        for row, swap in enumerate(swaps):
            if swap:
                states[-1][row] = swap.states(states[-1][row])
        drawn = rng.integers(len(self.outliers.states[0]), size=OUTLIERS)
        strange = [states[drawn] for states in self.outliers.states]
        states = map(np.concatenate, zip(states, strange, strict=True))
        x = {
            **{n: np.concatenate([x, masked[n]]) for n, x in given.items()},
            **{f"short_{n}": x for n, x in short.items()},
            **{f"state_{i}": values for i, values in enumerate(states)},
            **{f"listed_{i}": values for i, values in enumerate(listed)},
            "apart": self._apart(rows, swaps)[:CAPTIONS].astype("float32"),
            "asked_of": (longest // QUESTIONS).astype("int32"),
            "places": places,
        }
        scores = [self._scores(*question[1:]) for question in asked]
        # No answer is right where nothing is known.
        scores += [np.zeros_like(scores[0])] * OUTLIERS
        return x, {"vqa": np.stack(scores), "mlm": tokens}

    def _swaps(self, rows, rng):
        """Draw an exchange, or None, for each scene and the one like it."""
        half = [
            self.swaps.draw(self.pool.rows[row]["nouns"], rng)
            if rng.random() < self.swapped
            else None
            for row in rows[: len(rows) // 2]
        ]
        return half + half

    def _told(self, row, swap, rng):
        """Return a caption, a false one, and questions with their answers.

        Returns None if nothing can be said after an exchange.
        """
        known = self.pool.rows[row]
        said, wrong = self._named[row], known["wrong"] or ["nothing"]
        asked = _all_asked(known, rng)
        asked = [question for question in asked if question[3] in self.shares]
        if swap:
            said, wrong, asked = _renamed(said, wrong, known, asked, swap, rng)
            if not (said and wrong and asked):
                return None
        shares = np.array([self.shares[sort] for *_, sort in asked])
        order = rng.choice(
            len(asked), len(asked), replace=False, p=shares / shares.sum()
        )
        asked = [asked[i][:3] for i in np.resize(order, QUESTIONS)]
        return draw(said, rng), draw(wrong, rng), asked

    def _scores(self, answer, others):
        scores = np.zeros(len(self.number), "float32")
        right = [self.number[a] for a in others if a in self.number]
        scores[[*right, self.number[answer]]] = 1.0
        return scores

    def _apart(self, rows, swaps):
        """Return for each caption which pictures it is false of."""
        found = self.are_apart(rows, rows)
        shown = [self.pool.rows[row]["nouns"] for row in rows]
        classes = [
            swap.classes(nouns)
            if swap
            else [self.swaps.class_of[noun] for noun in nouns]
            for swap, nouns in zip(swaps, shown, strict=True)
        ]
        for i, j in itertools.product(range(len(rows)), repeat=2):
            if swaps[i] is not swaps[j]:
                found[i, j] = self.swaps.are_apart(classes[i], classes[j])
        return found

    def _masked(self, given, rng):
        ids = given["token_ids"].copy()
        ends = self.tokenizer.start_token_id, self.tokenizer.end_token_id
        free = (given["padding_mask"] == 1) & ~np.isin(ids, ends)
        hidden, places, tokens = hide_tokens(
            ids, free, HIDDEN, MOST_HIDDEN, rng
        )
        ids[hidden] = self.tokenizer.mask_token_id
        return {**given, "token_ids": ids}, places, tokens


def _naming(row):
    """Return the captions that name a thing of the scene."""
    return [
        text
        for text in row["captions"]
        if any(noun in text.lower() for noun in row["nouns"])
    ]


def _all_asked(row, rng):
    """Return the questions of a scene, and those that training alone asks."""
    asked = [question[:4] for question in row["questions"]]
    for question in row["questions"]:
        asked += of_sides(question, rng)
    return asked


def _renamed(said, wrong, known, asked, swap, rng):
    """Return what can be said, falsely said and asked after an exchange."""

    def all_of(change, texts):
        told = (change(text, known["nouns"], rng) for text in texts)
        return [text for text in told if text]

    asked = [ask(swap, question, known["nouns"], rng) for question in asked]
    asked = [question for question in asked if question]
    # Half of the false captions have a wrong name alone.
    both = [all_of(swap.rename, wrong), all_of(swap.misname, said)]
    both = [texts for texts in both if texts]
    wrong = draw(both, rng) if both else []
    return all_of(swap.rename, said), wrong, asked
