"""Statements about two of easy-VQA's pictures, like those of NLVR2.

Derived from easy-VQA as `scenes.py` says.
"""

import dataclasses

import numpy as np

from easy_world.pictures import COLOURS
from easy_world.pictures import SHAPES

# Each makes four rows.
SENTENCES = {"train": 2000, "validation": 250, "test": 500}
# Scores on test in percent of predictors that see one picture or none, counted
# on training.
BLIND_PAIRS = {"text": 50.0, "text and left": 68.15, "text and right": 68.75}
# Shapes whose sides differ by less are not compared.
LARGER_BY = 4  # pixels


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Sentences about two pictures.

    Args:
        image_index: int array `(rows, 2)`, left and right, rows of
            `data.images`; so `data.images[image_index]` are the pictures.
        sentences: list of str.
        labels: int array `(rows,)`, 1 for true.
        identifiers: list of str, as `evaluate_nlvr2` takes them.
        kinds: list of str, keys of `KINDS`.
    """

    image_index: np.ndarray
    sentences: list
    labels: np.ndarray
    identifiers: list
    kinds: list


def _both_contain(rng):
    value, word = _draw(rng, SHAPES)
    return (
        f"both images contain a {word}.",
        lambda a, b: (a["shape"] == value) & (b["shape"] == value),
    )


def _both_show(rng):
    value, word = _draw(rng, tuple(COLOURS))
    return (
        f"both shapes are {word}.",
        lambda a, b: (a["colour"] == value) & (b["colour"] == value),
    )


def _exactly_one(rng):
    value, word = _draw(rng, SHAPES)
    return (
        f"exactly one image contains a {word}.",
        lambda a, b: (a["shape"] == value) != (b["shape"] == value),
    )


def _left_and_right(rng):
    (left, word), (right, other) = _draw(rng, SHAPES), _draw(rng, SHAPES)
    sentence = f"the left image shows a {word} and the right one a {other}."
    return sentence, lambda a, b: (a["shape"] == left) & (b["shape"] == right)


def _same_colour(rng):
    return (
        "both shapes have the same colour.",
        lambda a, b: a["colour"] == b["colour"],
    )


def _left_larger(rng):
    return (
        "the left shape is larger than the right one.",
        lambda a, b: a["side"] > b["side"],
    )


def _at_least_one(rng):
    value, word = _draw(rng, tuple(COLOURS))
    return (
        f"at least one shape is {word}.",
        lambda a, b: (a["colour"] == value) | (b["colour"] == value),
    )


# Each draws a sentence and says whether it is true of two scenes.
KINDS = {
    "both contain": _both_contain,
    "both show": _both_show,
    "exactly one": _exactly_one,
    "left and right": _left_and_right,
    "same colour": _same_colour,
    "left larger": _left_larger,
    "at least one": _at_least_one,
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
        sentence, judge = KINDS[kind](rng)
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
        yes, no = (
            np.flatnonzero(truth & allowed),
            np.flatnonzero(~truth & allowed),
        )
        # Some pictures decide alone, such as one that is not red where both
        # must be: another is drawn.
        if len(yes) and len(no):
            return one, int(rng.choice(yes)), int(rng.choice(no))


def _draw(rng, words):
    value = int(rng.integers(len(words)))
    return value, words[value]
