"""Statements about two of easy-VQA's pictures, like those of NLVR2.

Derived from easy-VQA as `scenes.py` says.
"""

from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training.easy.pictures import COLOURS
from keras_bridgetower_drawings.training.easy.pictures import SHAPES

# Each makes four rows.
SENTENCES = {"train": 2000, "validation": 250, "test": 500}
# Scores on test in percent of predictors that see one picture or none, counted
# on training.
BLIND_PAIRS = {"text": 50.0, "text and left": 68.15, "text and right": 68.75}
# Shapes whose sides differ by less are not compared.
LARGER_BY = 4  # pixels


class Pairs(NamedTuple):
    """Sentences about two pictures."""

    # `(rows, 2)`, left and right, rows of `data.images`.
    image_index: np.ndarray
    sentences: list
    labels: np.ndarray  # `(rows,)`, 1 for true.
    identifiers: list  # As `evaluate_nlvr2` takes them.
    kinds: list  # Keys of `KINDS`.


_COLOURS = tuple(COLOURS)
# By kind: a sentence, what its words are drawn from, and whether it is true of
# two scenes `a` and `b` for the numbers of these words.
KINDS = {
    "both contain": (
        "both images contain a {}.",
        (SHAPES,),
        lambda a, b, x: (a["shape"] == x) & (b["shape"] == x),
    ),
    "both show": (
        "both shapes are {}.",
        (_COLOURS,),
        lambda a, b, x: (a["colour"] == x) & (b["colour"] == x),
    ),
    "exactly one": (
        "exactly one image contains a {}.",
        (SHAPES,),
        lambda a, b, x: (a["shape"] == x) != (b["shape"] == x),
    ),
    "left and right": (
        "the left image shows a {} and the right one a {}.",
        (SHAPES, SHAPES),
        lambda a, b, x, y: (a["shape"] == x) & (b["shape"] == y),
    ),
    "same colour": (
        "both shapes have the same colour.",
        (),
        lambda a, b: a["colour"] == b["colour"],
    ),
    "left larger": (
        "the left shape is larger than the right one.",
        (),
        lambda a, b: a["side"] > b["side"],
    ),
    "at least one": (
        "at least one shape is {}.",
        (_COLOURS,),
        lambda a, b, x: (a["colour"] == x) | (b["colour"] == x),
    ),
}


def pairs(scenes, seed=0):
    """Draw statements about two pictures, like those of NLVR2.

    Each sentence has four pairs. The first two, one true and one false, share
    the left picture, the last two the right one: neither the sentence alone
    nor one of the pictures decides.
    """
    rng = scenes.generator(seed)
    shown = {
        "shape": scenes.values[:, 0],
        "colour": scenes.values[:, 1],
        "side": scenes.sides,
    }
    index, sentences, labels, identifiers, kinds = [], [], [], [], []
    for number in range(SENTENCES[scenes.split]):
        kind = list(KINDS)[number % len(KINDS)]
        sentence, judge = _drawn(kind, rng)
        for shared in (0, 1):
            one, yes, no = _share(shown, judge, shared, kind, rng)
            for other, label in ((yes, 1), (no, 0)):
                index.append((one, other) if shared == 0 else (other, one))
                labels.append(label)
        sentences += [sentence] * 4
        kinds += [kind] * 4
        identifiers += [f"{scenes.split}-{number}-{i}-0" for i in range(4)]
    return Pairs(
        np.array(index), sentences, np.array(labels), identifiers, kinds
    )


def _share(shown, judge, shared, kind, rng):
    """Draw a picture, a partner that makes the sentence true, and one false.

    `shared` is the place of the picture itself: 0 left, 1 right.
    """
    count = len(shown["side"])
    while True:
        one = int(rng.integers(count))
        own = {name: values[one] for name, values in shown.items()}
        truth = judge(own, shown) if shared == 0 else judge(shown, own)
        allowed = np.arange(count) != one
        if kind == "left larger":
            allowed &= abs(shown["side"] - own["side"]) >= LARGER_BY
        yes, no = (np.flatnonzero(x & allowed) for x in (truth, ~truth))
        # If the picture decides alone, such as a blue one where both must be
        # red, draw another.
        if len(yes) and len(no):
            return one, int(rng.choice(yes)), int(rng.choice(no))


def _drawn(kind, rng):
    sentence, tables, judge = KINDS[kind]
    drawn = [int(rng.integers(len(words))) for words in tables]
    words = [table[i] for table, i in zip(tables, drawn, strict=True)]
    return sentence.format(*words), lambda a, b: judge(a, b, *drawn)
