"""Captions of easy-VQA's pictures: true ones, false ones, and with blanks.

Derived from easy-VQA as `scenes.py` says.
"""

from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training.easy import wordings
from keras_bridgetower_drawings.training.easy.scenes import words_of
from keras_bridgetower_drawings.training.reports import draw

# Each names all four attributes.
TEMPLATES = (
    "a {size} {colour} {shape} in the {position}.",
    "the {position} holds a {size} {shape} that is {colour}.",
    "there is a {colour} {shape} of {size} size in the {position}.",
    "this picture shows a {size} {shape} painted {colour} in the {position}.",
    "in the {position} is one {shape} that is {colour} and {size}.",
)
MASK = "<mask>"
# Share of each attribute's most frequent training value on test, in percent:
# what fills the blanks of captions without a look at the pictures.
BLIND_BLANKS = {"shape": 34.8, "colour": 12.5, "size": 38.0, "position": 25.4}
# Expected sum of recalls of guesses on the test gallery.
BLIND_RSUM = 6.95


class Captions(NamedTuple):
    """Pictures and several captions of each."""

    pictures: np.ndarray  # Rows of `data.images`.
    texts: list  # Those of one picture together.
    owner: np.ndarray  # `(texts,)`, position in `pictures`.
    # Like `pictures`. Pictures of one group fit each other's captions: the
    # image id of contrastive training.
    groups: np.ndarray


class Matches(NamedTuple):
    """Captions that are true of their picture or wrong in one attribute."""

    image_index: np.ndarray  # `(rows,)`, rows of `data.images`.
    texts: list
    labels: np.ndarray  # `(rows,)`, 1 for true.


class Blanks(NamedTuple):
    """Captions in which one attribute is masked."""

    image_index: np.ndarray  # `(rows,)`, rows of `data.images`.
    texts: list  # Each with one `<mask>`.
    answers: list  # The word that was there.
    kinds: list  # Its attribute.


def captions(scenes):
    return _captions(scenes, np.arange(len(scenes.values)))


def gallery(scenes):
    """Return one picture of each kind, so that a caption fits only one."""
    _, first = np.unique(scenes.groups, return_index=True)
    return _captions(scenes, np.sort(first))


def matches(scenes, seed=0):
    """Return each picture with a true and a false caption.

    Pairs of pictures exchange one attribute in which they differ, so every word
    is as frequent in false captions as in true ones.
    """
    rng = scenes.generator(seed)
    count = len(scenes.values)
    # Sorted by what they show, two that are half the pictures apart differ:
    # no group is half of all. Which groups meet is drawn.
    shown = np.unique(scenes.groups, return_inverse=True)[1]
    order = rng.permutation(count)
    drawn = rng.permutation(count)[shown[order]]
    order = order[np.argsort(drawn, kind="stable")]
    false = scenes.values.copy()
    half = count // 2
    for pair in zip(order[:half], order[half:], strict=True):
        pair = np.array(pair)
        differ = np.flatnonzero(np.diff(scenes.values[pair], axis=0)[0])
        attribute = rng.choice(differ)
        false[pair, attribute] = scenes.values[pair[::-1], attribute]
    templates = rng.integers(len(TEMPLATES), size=count)
    texts = [
        TEMPLATES[template].format(**words_of(values))
        for template, *pair in zip(templates, scenes.values, false, strict=True)
        for values in pair
    ]
    rows = np.repeat(np.arange(count), 2)
    return Matches(rows, texts, np.tile([1, 0], count))


def blanks(scenes, seed=0):
    """Return captions with one attribute masked, four for each picture."""
    rng = scenes.generator(seed)
    rows = []
    for picture in range(len(scenes.values)):
        template = draw(TEMPLATES, rng)
        words = scenes.words(picture)
        for kind, word in words.items():
            text = template.format(**words | {kind: MASK})
            rows.append((picture, text, word, kind))
    pictures, texts, answers, kinds = zip(*rows, strict=True)
    return Blanks(np.array(pictures), list(texts), list(answers), list(kinds))


def varied_captions(scenes, seed=0):
    """Draw one true sentence about every picture, in one of many wordings.

    Three of ten are captions of `TEMPLATES`, which name all attributes.
    """
    rng = scenes.generator(seed)
    texts = []
    for picture in range(len(scenes.values)):
        words = scenes.words(picture)
        if rng.random() < 0.3:
            texts.append(draw(TEMPLATES, rng).format(**words))
        else:
            texts.append(wordings.true_statement(rng, words).text)
    return texts


def _captions(scenes, pictures):
    texts = [
        template.format(**scenes.words(picture))
        for picture in pictures
        for template in TEMPLATES
    ]
    owner = np.repeat(np.arange(len(pictures)), len(TEMPLATES))
    return Captions(pictures, texts, owner, scenes.groups[pictures])
