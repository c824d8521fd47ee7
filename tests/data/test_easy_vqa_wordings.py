"""Sentences about easy-VQA said in many ways: a second reader gets the labels.

The reader here knows no frame and no claim: it looks for words in the text, and
judges by what the picture shows.
"""

import re

import numpy as np
import pytest
from builders import FASTEST
from easy_vqa_checks import each
from easy_world import captions
from easy_world import entailment
from easy_world import meaning
from easy_world.meaning import Statement
from easy_world.meaning import claim
from easy_world.meaning import judge

pytestmark = FASTEST

NAMES = {
    "shape": {
        "circle": "circle disc disk dot round circular",
        "rectangle": "rectangle box rectangular",
        "triangle": "triangle triangular",
        "none": "star dog cat house tree heart car line ring hexagon cross "
        "face flower letter bird",
    },
    "colour": {
        **{c: c for c in ("black", "red", "green", "blue", "yellow", "brown")},
        **{"gray": "gray grey", "teal": "teal turquoise"},
        "none": "purple pink orange white violet golden",
    },
    "size": {
        "small": "small little tiny",
        "medium": "medium medium-sized middle-sized",
        "large": "large big huge",
    },
}
MEANS = {
    word: (attribute, value)
    for attribute, values in NAMES.items()
    for value, words in values.items()
    for word in words.split()
}
PARTS = {
    "three corners": {"triangle"},
    "three sides": {"triangle"},
    "four corners": {"rectangle"},
    "four sides": {"rectangle"},
    "have corners": {"triangle", "rectangle"},
    "has corners": {"triangle", "rectangle"},
    "straight sides": {"triangle", "rectangle"},
}
SHARES = {
    "north": r"\b(top|upper|high)\b",
    "south": r"\b(bottom|lower|low)\b",
    "west": r"\bleft\b",
    "east": r"(?<!what is )\bright\b",
}
NOT = r"\b(not|no|nothing|cannot|neither)\b|n't"


def place_of(text):
    """Says of a position whether the text is true of it; None: no place."""
    text = text.replace("right in the", "in the")
    parts = re.findall(r"\b(?:north|south)?(?:west|east)?\b", text)
    compass = "".join(parts)
    if compass:
        return lambda position: position == compass
    sides = [side for side, words in SHARES.items() if re.search(words, text)]
    if sides:
        return lambda position: all(side in position for side in sides)
    if re.search(r"\b(middle|center|centre)\b(?!-)", text):
        return lambda position: position == "center"
    if re.search(r"\bcorners?\b", text):
        return lambda position: len(position) > 6
    return None


def facts(text, words, view):
    """For each thing that a text says: 0 false, 1 hidden, 2 true."""
    hidden = meaning.HIDDEN[view]
    found = []
    for token in re.findall(r"[a-z-]+", text):
        token = re.sub(r"(?<!s)(?<!boxe)s$|(?<=box)es$", "", token)
        if token in MEANS:
            attribute, value = MEANS[token]
            found.append((attribute, words[attribute] == value))
    for part, shapes in PARTS.items():
        if part in text:
            found.append(("shape", words["shape"] in shapes))
            break
    else:
        if place := place_of(text):
            found.append(("position", place(words["position"])))
    return [1 if name in hidden else 2 * is_so for name, is_so in found]


def read(text, words, view):
    """The label of a text, or None: it says nothing that the reader knows."""
    text = text.lower()

    def together(part):
        return min(facts(part, words, view))

    if found := re.fullmatch(r"(.*)(?: is|'s) (.*), not (.*)", text):
        return min(together(found[2]), 2 - together(found[3]))
    if found := re.fullmatch(
        r".*(?: is not| isn't|'s not) (.*) but (.*)", text
    ):
        return min(2 - together(found[1]), together(found[2]))
    if found := re.fullmatch(r".* neither (.*) nor (.*)", text):
        return min(2 - together(found[1]), 2 - together(found[2]))
    if found := re.fullmatch(r".*(?: is|'s) (.*) or (.*)", text):
        return max(together(found[1]), together(found[2]))
    if not facts(text, words, view):
        return None
    subject = re.fullmatch(r"the (.*) (?:is not|isn't) (.*)", text)
    if subject and facts(subject[1], words, view):
        return min(together(subject[1]), 2 - together(subject[2]))
    if re.search(NOT, text):
        return 2 - together(text)
    return together(text)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_second_reader_gives_the_same_labels(scenes, split):
    found = scenes[split]
    built = entailment.varied_entailment(found, seed=3, sentences=1500)
    unread = 0
    for picture, view, text, label in each(
        built, "image_index", "views", "hypotheses", "labels"
    ):
        again = read(text.rstrip(".!"), found.words(picture), view)
        unread += again is None
        assert again in (None, label), (text, found.words(picture), view)
    # How many shapes there are, and what no picture tells.
    assert unread < 0.07 * len(built.labels)


def test_true_sentences_are_true(scenes):
    found = scenes["validation"]
    texts = captions.varied_captions(found, seed=5)
    assert len(texts) == len(found.values)
    for picture, text in enumerate(texts):
        words = found.words(picture)
        if re.search(r"\b(of size|of [a-z]+ size|painted|holds)\b", text):
            assert all(word in text for word in words.values())
        else:
            assert read(text.rstrip(".!"), words, "full") == 2, (text, words)


def test_truth_tables():
    """Kleene's tables of "and" and "not", written out."""
    # A red circle, whose color the veil hides: false, hidden and true claims.
    values = np.array([[1, 2, 0, 4]])
    says = [
        claim("size", "large"),
        claim("colour", "red"),
        claim("shape", "circle"),
    ]

    def truth(*claims, denied=False):
        statement = Statement("", claims, denied)
        return judge(statement, values, "no_colour")

    both = [[0, 0, 0], [0, 1, 1], [0, 1, 2]]
    for left in range(3):
        assert truth(says[left].denied()) == 2 - left
        for right in range(3):
            pair = says[left], says[right]
            assert truth(*pair) == both[left][right]
            assert truth(*pair, denied=True) == 2 - both[left][right]


def test_what_is_undecided_has_no_label():
    north = claim("position", "north", undecided=("northwest", "northeast"))
    values = np.array([[0, 0, 0, position] for position in range(9)])
    statement = Statement("it is in the north.", (north,))
    assert judge(statement, values, "full").tolist() == [-1, 2, -1] + 6 * [0]
    denied = Statement("it is not in the north.", (north,), denied=True)
    assert judge(denied, values, "full").tolist() == [-1, 0, -1] + 6 * [2]
    supposed = Statement("", (claim("shape", "circle").presupposed(),))
    assert judge(supposed, np.eye(4, dtype=int)[:2], "full").tolist() == [2, -1]
    untold = Statement("it is heavy.", ())
    assert judge(untold, values, "full").tolist() == 9 * [1]
