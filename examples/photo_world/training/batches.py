"""Batches of kept scenes, with their texts as tokens."""

import numpy as np
from emoji_world.training.model import hide_tokens

from photo_world.training.model import text_features
from photo_world.training.swapping import SORTS

SCENES, QUESTIONS = 32, 3  # Of a batch, and asked of each scene.
MASKED = 16  # Captions with hidden words.
SWAPPED = 16  # Pictures whose classes are exchanged.
NEIGHBORS = 20
# Share of the tokens of a caption that are hidden, and at most so many.
HIDDEN, MOST_HIDDEN = 0.35, 8


class Batches:
    """Makes batches of one pool; half of the scenes are like the other half.

    Args:
        pool: `Pool`.
        vectors: float `(scenes, width)`, the pictures in the space.
        tokenizer: that of the text tower.
        answers: list of str.
        apart: set of pairs of nouns that never name one thing.
        swaps: `Swaps`.
    """

    def __init__(self, pool, vectors, tokenizer, answers, apart, swaps):
        self.pool, self.tokenizer = pool, tokenizer
        self.swaps = swaps
        self._single = np.flatnonzero(
            [row["sort"] in SORTS for row in pool.rows]
        )
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
        self._named = [
            [
                text
                for text in row["captions"]
                if any(noun in text.lower() for noun in row["nouns"])
            ]
            or row["captions"][:1]
            for row in pool.rows
        ]

    def are_apart(self, rows, others):
        """Return whether no noun of one scene can be said of the other."""
        return ~((self._shown[rows] @ self._said[others].T) > 0)

    def order(self, rng):
        """Return the rows of an epoch: each scene, and one that is like it."""
        first = rng.permutation(len(self.pool.rows))
        second = np.array([self._like(row, rng) for row in first])
        half = SCENES // 2
        count = len(first) // half * half
        pairs = [rows[:count].reshape(-1, half) for rows in (first, second)]
        return np.concatenate(pairs, 1)

    def _like(self, row, rng):
        apart = self.are_apart([row], slice(None))[0]
        likeness = np.where(apart, self._likeness[row], -9.0)
        near = np.argpartition(-likeness, NEIGHBORS)[:NEIGHBORS]
        return near[rng.integers(NEIGHBORS)]

    def make(self, rows, rng):
        """Return the features and labels of a batch."""
        said = [self._one(self._named[row], rng) for row in rows]
        wrong = [
            self._one(self.pool.rows[row]["wrong"] or ["nothing"], rng)
            for row in rows
        ]
        asked, wanted = self._asked(rows, rng)
        swapped, *names = self._swapped(rng)
        told = [*said, *wrong, *asked, *names[0], *names[1]]
        given = text_features(self.tokenizer, told)
        masked, places, tokens = self._masked(
            {name: x[:MASKED] for name, x in given.items()}, rng
        )
        texts = {
            name: np.concatenate([x, masked[name]]) for name, x in given.items()
        }
        x = {
            **texts,
            **{
                f"state_{i}": np.asarray(states[rows])
                for i, states in enumerate(self.pool.states)
            },
            "apart": self.are_apart(rows, rows).astype("float32"),
            "places": places,
            **{f"swapped_{i}": x for i, x in enumerate(swapped)},
        }
        return x, {"vqa": wanted, "mlm": tokens}

    def _swapped(self, rng):
        rows = rng.choice(self._single, SWAPPED, replace=False)
        states = [states[rows] for states in self.pool.states]
        last, texts, wrong = self.swaps.draw(states[-1], rng)
        return [*states[:-1], last], texts, wrong

    def _asked(self, rows, rng):
        asked, wanted = [], []
        for row in rows:
            known = self.pool.rows[row]["questions"]
            for i in np.resize(rng.permutation(len(known)), QUESTIONS):
                text, answer, others, *_ = known[i]
                scores = np.zeros(len(self.number), "float32")
                right = [self.number[a] for a in others if a in self.number]
                scores[[*right, self.number[answer]]] = 1.0
                asked.append(text)
                wanted.append(scores)
        return asked, np.stack(wanted)

    def _masked(self, given, rng):
        ids = given["token_ids"].copy()
        ends = self.tokenizer.start_token_id, self.tokenizer.end_token_id
        free = (given["padding_mask"] == 1) & ~np.isin(ids, ends)
        hidden, places, tokens = hide_tokens(
            ids, free, HIDDEN, MOST_HIDDEN, rng
        )
        ids[hidden] = self.tokenizer.mask_token_id
        return {**given, "token_ids": ids}, places, tokens

    @staticmethod
    def _one(texts, rng):
        return texts[rng.integers(len(texts))]
