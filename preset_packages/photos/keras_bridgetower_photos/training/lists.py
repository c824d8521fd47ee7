"""Lists as a search finds them: one text, and similar pictures.

In a scene counts and places also tell whether a text fits; in a gallery only
name, kind and color do.
"""

import numpy as np
from keras_bridgetower_drawings.training.reports import draw

from keras_bridgetower_photos.training import words

LISTS = 8  # Texts of a batch.
WRONG = 5  # Pictures that a text does not fit.
NEIGHBORS = 15
SWAPPED = 0.65  # Share of the lists whose classes are exchanged.
COLORED = 0.5  # Share of the names with a color.
MEANT = 0.3  # Share of the classes of which a text says what they are.
# A thing is of a class as often as this power of its probability says.
SURENESS = 1.5
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
    """

    def __init__(self, shown, states, vectors, apart, swaps):
        self.shown, self.states, self.apart = shown, states, apart
        self.swaps = swaps
        self.rows = [i for i, one in enumerate(shown) if one.split == "train"]
        shares = states[-1][:, 0, : len(swaps.known)].astype("float64")
        self.classes = shares.argmax(1)
        shares = shares**SURENESS
        self.shares = shares / shares.sum(1, keepdims=True)
        near = np.argsort(-(vectors @ vectors[self.rows].T), 1)
        # For each picture, those of training that are most like it first.
        self.near = np.array(self.rows)[near]

    def draw(self, rng):
        """Return `LISTS` texts, and the states of their pictures.

        States are `((1 + WRONG) * LISTS, tokens, width)`, right ones first.
        """
        texts, lists, swaps = [], [], []
        while len(texts) < LISTS:
            row = rng.choice(self.rows)
            find = self._of_class if rng.random() < SWAPPED else self._of_kind
            text, wrong, swap = find(row, rng)
            if text and len(wrong) >= WRONG:
                texts.append(text)
                lists.append([row, *rng.choice(wrong, WRONG, replace=False)])
                swaps.append(swap)
        rows = np.array(lists).T
        states = [states[rows] for states in self.states]
        for number, swap in enumerate(swaps):
            if swap:
                own = states[-1][:, number]
                states[-1][:, number] = swap.states(own)
        return texts, [x.reshape(-1, *x.shape[2:]) for x in states]

    def _of_class(self, row, rng):
        """Return a text after an exchange of classes, and wrong pictures."""
        one, known = self.shown[row], self.swaps.known
        own = rng.choice(len(known), p=self.shares[row])
        swap = self.swaps.draw_from(own, rng)
        number = swap.to[own]
        if rng.random() < MEANT:
            return known[number].meaning, self._others(row, own), swap
        noun = known[number].names[0]
        if rng.random() < 0.3:
            noun = str(rng.choice(known[number].names))
        if one.color and rng.random() < COLORED:
            text = self._text(f"{one.color} {noun}", noun, rng)
            return text, self._others(row, own, one.color), swap
        return self._text(noun, noun, rng), self._others(row, own), swap

    def _of_kind(self, row, rng):
        """Return a text of color and kind, and wrong pictures."""
        one = self.shown[row]
        if not one.color:
            return "", [], None
        wrong = [
            other
            for other in self.near[row]
            if _has_false_color(self.shown[other], one.color)
            or words.is_false(one.kind, self.shown[other])
        ]
        text = self._text(f"{one.color} {one.kind}", one.kind, rng)
        return text, wrong[:NEIGHBORS], None

    def _others(self, row, own, color=""):
        """Return similar pictures of another name, or of another color."""
        noun = self.shown[row].noun
        found = [
            other
            for other in self.near[row]
            if (noun, self.shown[other].noun) in self.apart
            and self.classes[other] != own
        ][:NEIGHBORS]
        if color:
            # Half of them are wrong by the color alone.
            by_color = [
                other
                for other in self.near[row]
                if _has_false_color(self.shown[other], color)
            ]
            count = NEIGHBORS // 2
            found = list(dict.fromkeys(found[:count] + by_color[:count]))
        return found

    def _text(self, told, noun, rng):
        way = draw(WAYS, rng)
        return way.format(noun=told, a=words.with_article(told, noun))


def _has_false_color(one, color):
    return bool(one.color) and words.is_false_color(color, one.color)
