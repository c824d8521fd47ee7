"""Entailment about easy-VQA's pictures, in some of which a part is hidden.

Derived from easy-VQA as `scenes.py` says.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training.easy import wordings
from keras_bridgetower_drawings.training.easy.meaning import CONTRADICTION
from keras_bridgetower_drawings.training.easy.meaning import ENTAILMENT
from keras_bridgetower_drawings.training.easy.meaning import HIDDEN
from keras_bridgetower_drawings.training.easy.meaning import NEUTRAL
from keras_bridgetower_drawings.training.easy.meaning import judge
from keras_bridgetower_drawings.training.easy.pictures import COLOURS
from keras_bridgetower_drawings.training.easy.pictures import SHAPES
from keras_bridgetower_drawings.training.easy.pictures import background
from keras_bridgetower_drawings.training.easy.pictures import pure_colour
from keras_bridgetower_drawings.training.easy.pictures import shape_mask

VIEWS = tuple(HIDDEN)
# Each makes three rows.
HYPOTHESES = {"train": 4000, "validation": 500, "test": 1000}
# Scores on test in percent of predictors that miss the picture, counted on
# training: from the text, from the view alone, and from both together.
BLIND_ENTAILMENT = {"text": 33.33, "view": 49.93, "text and view": 66.20}


class Entailment(NamedTuple):
    """Hypotheses about veiled pictures."""

    image_index: np.ndarray  # `(rows,)`, rows of `data.images`.
    views: list  # What is seen of each picture, as in `veil`.
    hypotheses: list
    labels: np.ndarray  # `(rows,)`: contradiction 0, neutral 1, entailment 2.
    seed: int  # Draws the noise of the veils.

    def images(self, scenes):
        """Return the veiled pictures, uint8 `(rows, 64, 64, 3)`."""
        return np.stack(list(self.each_image(scenes)))

    def each_image(self, scenes):
        rng = scenes.generator(self.seed)
        for row, view in zip(self.image_index, self.views, strict=True):
            yield veil(scenes.data.images[row], view, rng)


def veil(image, view, seed):
    """Hide one attribute of a picture.

    `"no_colour"` colors every pixel of the shape at random, with sharp edges;
    `"no_shape"` fills the picture with the shape's color.
    """
    if view == "full":
        return image
    if view == "no_colour":
        palette = np.array(list(COLOURS.values()), "uint8")
        rng = np.random.default_rng(seed)
        noise = palette[rng.integers(len(palette), size=image.shape[:2])]
        # Soft edges would show a tint: the shape ends sharply instead.
        behind = background(image)
        return np.where(shape_mask(image)[..., None], noise, behind)
    colour, _ = pure_colour(image)
    return np.broadcast_to(np.uint8(COLOURS[colour]), image.shape).copy()


def entailment(scenes, seed=0):
    """Draw hypotheses of visual entailment with three labels.

    Each ("the shape is (not) a circle." or "... (not) red.") has a picture
    where it is true, one where it is false, and one whose view hides the
    attribute. True and false ones are seen in full or with the other attribute
    hidden, at random, so a veil does not imply neutral.
    """
    rng = scenes.generator(seed)
    rows = []
    for _ in range(HYPOTHESES[scenes.split]):
        column = int(rng.integers(2))
        words = (SHAPES, tuple(COLOURS))[column]
        hides, hides_other = (VIEWS[2 - column], VIEWS[1 + column])
        value, negated = rng.integers(len(words)), bool(rng.integers(2))
        word = words[value] if column else f"a {words[value]}"
        hypothesis = f"the shape is {'not ' if negated else ''}{word}."
        true = (scenes.values[:, column] == value) != negated
        for label, fits in ((ENTAILMENT, true), (CONTRADICTION, ~true)):
            picture = rng.choice(np.flatnonzero(fits))
            view = (VIEWS[0], hides_other)[rng.integers(2)]
            rows.append((picture, view, hypothesis, label))
        rows.append((rng.integers(len(true)), hides, hypothesis, NEUTRAL))
    return _entailment(rows, seed)


def varied_entailment(scenes, seed=0, sentences=4000):
    """Draw hypotheses in many wordings, for training.

    Each sentence of `wordings.statement` has a picture for each label that some
    picture has. Half of the contradictions are near: one claim alone is false.
    """
    rng = scenes.generator(seed)
    rows = []
    for _ in range(sentences):
        said = wordings.statement(rng)
        judged = {view: judge(said, scenes.values, view) for view in VIEWS}
        failing = _failing_claims(said, scenes.values)
        for label in (ENTAILMENT, CONTRADICTION, NEUTRAL):
            views = [v for v in VIEWS if (judged[v] == label).any()]
            if not views:
                continue
            # A veil alone says little: most pictures are seen in full.
            full = VIEWS[0] in views and rng.random() < 0.6
            view = VIEWS[0] if full else views[rng.integers(len(views))]
            fits = judged[view] == label
            near = fits & (failing == 1)
            if label == CONTRADICTION and near.any() and rng.random() < 0.5:
                fits = near
            picture = rng.choice(np.flatnonzero(fits))
            rows.append((picture, view, said.text, label))
    return _entailment(rows, seed)


def _failing_claims(said, values):
    """int array `(pictures,)`: how many claims are false of each in full."""
    return sum(
        judge(dataclasses.replace(said, claims=(one,)), values, VIEWS[0])
        == CONTRADICTION
        for one in said.claims
    )


def _entailment(rows, seed):
    index, views, texts, labels = map(list, zip(*rows, strict=True))
    return Entailment(np.array(index), views, texts, np.array(labels), seed)
