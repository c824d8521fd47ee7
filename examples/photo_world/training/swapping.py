"""Exchange the classes of things, so that matching learns a thousand nouns.

The world has some two hundred nouns, which a fusion learns by heart: of a thing
that it never saw it then thinks anything. The class probabilities of a picture
can be moved to other classes, as if a toaster stood where the owl is. What is
like an owl goes to what is like a toaster, so the usual confusions stay.
"""

import numpy as np

from photo_world import words

# Scenes with one thing.
SORTS = ("alone", "photograph")
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
# A wrong name is often near the right one.
NEAR = 30


class Swaps:
    """Draws exchanges of classes.

    Args:
        names: list of list of str, what each class is called.
        vectors: float `(classes, width)`, the classes as texts.
    """

    def __init__(self, names, vectors):
        self.names = names
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        # All classes, most similar first.
        self.order = np.argsort(-unit @ unit.T, 1).astype("int32")

    def draw(self, states, rng):
        """Exchange the classes of pictures.

        Args:
            states: float `(pictures, tokens, width)`, class probabilities in
                front, and row 0 their mean.
            rng: `numpy.random.Generator`.

        Returns:
            `(states, texts, wrong)`: the new states, what is true of them, and
            what is not.
        """
        count, classes = len(states), len(self.names)
        moved, texts, wrong = states.copy(), [], []
        own = states[:, 0, :classes].argmax(1)
        new = rng.choice(classes, count, replace=False)
        for row in range(count):
            moved[row][:, self.order[new[row]]] = states[row][
                :, self.order[own[row]]
            ]
            first = self.order[new[row]]
            most = min(NEAR, classes) if rng.random() < 0.5 else classes
            other = rng.integers(1, most)
            texts.append(self._said(new[row], rng))
            wrong.append(self._said(first[other], rng))
        return moved, texts, wrong

    def _said(self, number, rng):
        names = self.names[number]
        noun = names[0] if rng.random() < 0.7 else str(rng.choice(names))
        way = WAYS[rng.integers(len(WAYS))]
        return way.format(noun=noun, a=words.with_article(noun))
