"""Draw sentences about the world's pictures, in many ways of saying.

`wordings.json` has the words and the frames of sentences. Each kind of
sentence is one small function: it draws words, puts them into a frame, and
states what the sentence claims. With `words`, the attributes of a picture, the
sentence is true of that picture.
"""

import dataclasses
import json
import pathlib
from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.easy.meaning import Claim
from keras_bridgetower_drawings.training.easy.meaning import Statement
from keras_bridgetower_drawings.training.easy.meaning import claim
from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES

# A frame claims nothing by itself: its slots do, and whether its table is one
# of "not". {adj} is an adjective, {a} a noun with its article, {noun} and
# {nouns} the noun without it, {place} a place. Other slots are drawn from
# "slots", whose words can replace each other anywhere.
TEXTS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
# The share of the plainest word, the first, where there are several.
PLAINEST = 0.6


class Word(NamedTuple):
    """A word or phrase, and its claim about the shape."""

    text: str
    claim: Claim


# Tables from a claim to the words for it. All words of a claim mean the same,
# so a synonym never changes a label.
ADJECTIVES = {
    attribute: {claim(attribute, value): ways for value, ways in table.items()}
    for attribute, table in TEXTS["words"].items()
}
NOUNS = {claim("shape", v): ways for v, ways in TEXTS["nouns"].items()}
# Claims that are false of every picture.
ABSENT_ADJECTIVES = {claim("colour"): TEXTS["absent words"]}
ABSENT_NOUNS = {claim("shape"): TEXTS["absent nouns"]}
# Corners and sides, which tell the shape.
PARTS = {claim("shape", *v.split()): w for v, w in TEXTS["parts"].items()}
PLACES, COMPASS = (
    {
        claim(
            "position", *row["cells"], undecided=row.get("undecided", ())
        ): row["ways"]
        for row in TEXTS[name]
    }
    for name in ("places", "compass")
)


def draw(table, rng, value=None):
    fit = [one for one in table if value is None or value in one.true]
    chosen = fit[rng.integers(len(fit))]
    ways = table[chosen]
    way = 0 if rng.random() < PLAINEST else rng.integers(len(ways))
    return Word(ways[way], chosen)


def _word(attribute, rng, words):
    if words is None and attribute == "colour" and rng.random() < 0.06:
        return draw(ABSENT_ADJECTIVES, rng)
    return draw(ADJECTIVES[attribute], rng, words and words[attribute])


def _noun(rng, words):
    if words is None and rng.random() < 0.08:
        return draw(ABSENT_NOUNS, rng)
    return draw(NOUNS, rng, words and words["shape"])


def _somewhere(rng, words):
    table = (PLACES, COMPASS)[rng.random() < 0.2]
    return draw(table, rng, words and words["position"])


def _noun_phrase(rng, words, without=()):
    """Draw adjectives and a noun: text without an article, and claims."""
    while True:
        named = [
            attribute
            for attribute, share in (("size", 0.3), ("colour", 0.5))
            if attribute not in without and rng.random() < share
        ]
        parts = [_word(attribute, rng, words) for attribute in named]
        claims = [part.claim for part in parts]
        texts = [part.text for part in parts]
        if "shape" not in without and rng.random() < 0.75:
            noun = _noun(rng, words)
            texts, claims = [*texts, noun.text], [*claims, noun.claim]
        else:
            texts.append("{thing}")
        if claims:
            return " ".join(texts), tuple(claims)


def _nouns(text):
    article = "an" if text[0] in "aeiou" else "a"
    plural = f"{text}es" if text.endswith(("x", "s")) else f"{text}s"
    return {"a": f"{article} {text}", "noun": text, "nouns": plural}


def quality(rng, words):
    """It is blue. It is not small."""
    attribute = reports.draw(
        ("colour", "colour", "colour", "size", "shape"), rng
    )
    word = _word(attribute, rng, words)
    denied = words is None and rng.random() < 0.5
    table = "is_not" if denied else "is"
    if rng.random() < 0.3:
        ways = TEXTS[f"{table}_of"][attribute]
    else:
        ways = TEXTS[table]
    text = _fill(reports.draw(ways, rng), rng, adj=word.text)
    return Statement(text, (word.claim,), denied)


def thing(rng, words):
    """There is a blue circle. No triangle here."""
    text, claims = _noun_phrase(rng, words)
    denied = words is None and rng.random() < 0.5
    frame = reports.draw(TEXTS["not_there" if denied else "there"], rng)
    return Statement(_fill(frame, rng, **_nouns(text)), claims, denied)


def place(rng, words):
    """It lies at the top left."""
    word = _somewhere(rng, words)
    denied = words is None and rng.random() < 0.4
    frame = reports.draw(TEXTS["lies_not" if denied else "lies"], rng)
    return Statement(_fill(frame, rng, place=word.text), (word.claim,), denied)


def thing_in_place(rng, words):
    """A blue circle in the middle."""
    text, claims = _noun_phrase(rng, words)
    word = _somewhere(rng, words)
    frame = reports.draw(TEXTS["lies_there"], rng)
    text = _fill(frame, rng, place=word.text, **_nouns(text))
    return Statement(text, (*claims, word.claim))


def predicate(rng, words):
    """The circle is blue. The blue shape is not on the left."""
    attribute = reports.draw(("colour", "size", "shape", "position"), rng)
    text, claims = _noun_phrase(rng, words, without=(attribute,))
    if attribute == "position":
        word = _somewhere(rng, words)
    elif attribute == "shape" and rng.random() < 0.7:
        word = _noun_with_article(rng, words)
    else:
        word = _word(attribute, rng, words)
    denied = words is None and rng.random() < 0.4
    verb = "is not" if denied else "is"
    text = _fill(f"the {text} {verb} {word.text}", rng)
    if not denied:
        return Statement(text, (*claims, word.claim))
    supposed = tuple(one.presupposed() for one in claims)
    return Statement(text, (*supposed, word.claim.denied()))


def two(rng, words):
    """It is small and blue. It is red, not blue. Red or blue."""
    attribute = reports.draw(("colour", "colour", "shape"), rng)
    if words is not None or rng.random() < 0.4:
        first, second = _word("size", rng, words), _word(attribute, rng, words)
        frame = reports.draw(
            ("{it} is {one} and {two}", "{one} and {two}"), rng
        )
        claims = (first.claim, second.claim)
    else:
        first = second = _either(attribute, rng)
        while second.claim == first.claim:
            second = _either(attribute, rng)
        yes, no = first.claim, second.claim
        either = Claim(yes.attribute, yes.true | no.true, yes.false & no.false)
        frame, claims = (
            ("{it} is {one}, not {two}", (yes, no.denied())),
            ("{it} is not {two} but {one}", (yes, no.denied())),
            ("{it} is neither {one} nor {two}", (yes.denied(), no.denied())),
            ("{it} is {one} or {two}", (either,)),
        )[rng.integers(4)]
    text = _fill(frame, rng, one=first.text, two=second.text)
    return Statement(text, claims)


def _either(attribute, rng):
    if attribute == "shape":
        return _noun_with_article(rng, None)
    return _word(attribute, rng, None)


def _noun_with_article(rng, words):
    noun = _noun(rng, words)
    return Word(_nouns(noun.text)["a"], noun.claim)


def parts(rng, words):
    """It has three corners."""
    value = words and words["shape"]
    if value == "circle":
        return quality(rng, words)
    word = draw(PARTS, rng, value)
    denied = words is None and rng.random() < 0.5
    frame = "{it} does not have {parts}" if denied else "{it} has {parts}"
    return Statement(_fill(frame, rng, parts=word.text), (word.claim,), denied)


def number(rng, words):
    """There is one shape. There are two shapes."""
    if words is not None or rng.random() < 0.5:
        table, claimed = "one_shape", claim("shape", *ATTRIBUTES["shape"])
    else:
        table, claimed = "many_shapes", claim("shape")
    return Statement(_fill(reports.draw(TEXTS[table], rng), rng), (claimed,))


def untold(rng, words):
    """It is heavy: no picture of this world says so."""
    return Statement(_fill(reports.draw(TEXTS["untold"], rng), rng), ())


# The shares of the kinds; of true sentences, of those worth a blank.
KINDS = {
    **{quality: 0.27, thing: 0.27, place: 0.11, thing_in_place: 0.08},
    **{predicate: 0.14, two: 0.05, parts: 0.03, number: 0.03, untold: 0.02},
}
TRUE_KINDS = {
    **{quality: 0.24, thing: 0.26, place: 0.14, thing_in_place: 0.16},
    **{predicate: 0.14, two: 0.04, parts: 0.02},
}


def statement(rng):
    """Draw a `Statement`, which may be true or false of a picture."""
    return _drawn(KINDS, rng, None)


def true_statement(rng, words):
    """Draw a `Statement` that is true of a picture, without "not"."""
    return _drawn(TRUE_KINDS, rng, words)


def _drawn(kinds, rng, words):
    shares = np.array([*kinds.values()])
    kind = [*kinds][rng.choice(len(shares), p=shares / shares.sum())]
    plain = kind(rng, words)
    return dataclasses.replace(plain, text=_written(plain.text, rng))


def _fill(frame, rng, **words):
    """Fill a frame with words; draw the words of other slots."""
    slots = TEXTS["slots"]
    text = frame.format_map(words | {k: f"{{{k}}}" for k in slots})
    return text.format_map({k: reports.draw(v, rng) for k, v in slots.items()})


def _written(text, rng):
    """Vary capitals, contractions and full stops, as people do."""
    if rng.random() < 0.35:
        for long, short in TEXTS["contractions"].items():
            text = text.replace(long, short)
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
        text = text.replace(" i ", " I ")
    return text + reports.draw(("", ".", ".", ".", "", "!"), rng)
