"""Lists as a search finds them: one text, and pictures that are all alike.

In a scene much tells whether a text fits: how many things there are, and where.
Among the pictures of a gallery it is the name, the kind and the color alone.
"""

import numpy as np

from photo_world import words

LISTS = 12  # Texts of a batch.
WRONG = 3  # Pictures that a text does not fit.
NEIGHBORS = 15
SWAPPED = 0.7  # Share of the lists whose classes are exchanged.
COLORED = 0.3  # Share of the texts with a color.
WAYS = (
    "a photo of {a}",
    "a picture of {a}",
    "{a}",
    "{noun}",
    "there is {a}",
    "this is {a}",
    "an image that shows {a}",
    "one sees {a}",
)


class Lists:
    """Draws lists of pictures that training may see.

    Args:
        shown: list of `Thing` and `Photograph`.
        states: list of arrays, their states.
        vectors: float `(shown, width)`, the pictures in the space.
        apart: set of pairs of nouns that never name one thing.
        swaps: `Swaps`.
    """

    def __init__(self, shown, states, vectors, apart, swaps):
        self.rows = [i for i, one in enumerate(shown) if one.split == "train"]
        self.shown, self.states, self.swaps = shown, states, swaps
        self.classes = states[-1][:, 0, : len(swaps.names)].argmax(1)
        likeness = vectors @ vectors.T
        self.near = {}
        for row in self.rows:
            others = [
                other
                for other in self.rows
                if (shown[row].noun, shown[other].noun) in apart
                and self.classes[row] != self.classes[other]
            ]
            order = np.argsort(-likeness[row, others])[:NEIGHBORS]
            self.near[row] = np.array(others)[order]

    def draw(self, rng):
        """Return texts and states, those of the right pictures first.

        Returns:
            `(texts, states)`: list of `LISTS` str, and a list of arrays
            `((1 + WRONG) * LISTS, tokens, width)`.
        """
        texts, rows, swaps = [], [], []
        for row in rng.choice(self.rows, LISTS, replace=False):
            swap = None
            if rng.random() < SWAPPED:
                swap = self.swaps.draw([self.shown[row].noun], rng)
            wrong = rng.choice(self.near[row], WRONG, replace=False)
            texts.append(self._text(row, swap, rng))
            rows.append([row, *wrong])
            swaps.append(swap)
        rows = np.array(rows).T
        states = [states[rows] for states in self.states]
        for number, swap in enumerate(swaps):
            if swap:
                own = states[-1][:, number]
                states[-1][:, number] = swap.states(own)
        return texts, [x.reshape(-1, *x.shape[2:]) for x in states]

    def _text(self, row, swap, rng):
        one = self.shown[row]
        if swap:
            names = self.swaps.names[swap.to[self.classes[row]]]
            noun = names[0] if rng.random() < 0.7 else str(rng.choice(names))
        else:
            noun = str(rng.choice(words.called(one)))
        told = noun
        if one.color and rng.random() < COLORED and not words.is_proper(noun):
            told = f"{one.color} {noun}"
        way = WAYS[rng.integers(len(WAYS))]
        return way.format(noun=told, a=words.with_article(told, noun))
