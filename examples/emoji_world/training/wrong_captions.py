"""Captions that do not belong to a drawing, many of an emoji like it."""

import numpy as np

# Of the captions that do not belong to a drawing, how many are of one of the
# emoji that are most like it, at most.
ALIKE, NEAREST = 0.6, 32
TRIES = 20


class WrongCaptions:
    """Draws captions that do not belong to an emoji.

    A caption is wrong if the word that it was made of is none of the emoji's.

    Args:
        run: `Run`.
        captions: list of str.
        emoji_of: int array `(captions,)`, the number of a caption's emoji.
        vectors: float array `(captions, SPACE)`, where a text tower puts them.
    """

    def __init__(self, run, captions, emoji_of, vectors):
        self._looks, self._captions = run.splits.looks, emoji_of
        self._numbers = np.unique(emoji_of)
        self._row = {number: i for i, number in enumerate(self._numbers)}
        self._own = [np.flatnonzero(emoji_of == n) for n in self._numbers]
        places = np.stack([vectors[own].mean(0) for own in self._own])
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        self._near = np.argsort(-places @ places.T, 1)[:, 1 : NEAREST + 1]
        self._words = {n: _words(run.world[n]) for n in self._numbers}
        self._said = [
            _said(text, self._words[number])
            for text, number in zip(captions, emoji_of, strict=True)
        ]

    def draw(self, number, alike, rng):
        """The row of a caption that is wrong of an emoji.

        Args:
            number: int, of an emoji of training.
            alike: float, the share that is of an emoji like it.
            rng: `numpy.random.Generator`.
        """
        row = self._row[number]
        for _ in range(TRIES):
            if rng.random() < alike:
                other = self._near[row, rng.integers(len(self._near[row]))]
            else:
                other = rng.integers(len(self._numbers))
            caption = rng.choice(self._own[other])
            if self.is_wrong(caption, number):
                break
        return caption

    def is_wrong(self, caption, number):
        """Whether a caption, by its row, says nothing true of an emoji."""
        said = self._said[caption]
        alike = self._looks[self._captions[caption]] == self._looks[number]
        return not alike and bool(said) and said not in self._words[number]


def _words(emoji):
    """What an emoji may be called."""
    short = emoji.name.partition(": ")[2]
    return {emoji.name, short or emoji.name, *emoji.keywords}


def _said(text, words):
    """The longest of some words that a text holds, or None."""
    text = text.lower()
    return max((w for w in words if w in text), key=len, default=None)
