"""Draws sentences about the world's pictures, said in many ways.

Each kind of sentence is one small function: it draws words, puts them into one
of several frames, and says what the sentence claims. With `words`, the
attributes of a picture, the sentence is true of that picture.
"""

import numpy as np

from easy_world import frames
from easy_world import lexicon
from easy_world.meaning import Claim
from easy_world.meaning import Statement
from easy_world.meaning import claim
from easy_world.scenes import ATTRIBUTES


def _pick(ways, rng):
    return ways[rng.integers(len(ways))]


def _word(attribute, rng, words):
    """An adjective; seldom one that fits no picture."""
    if words is None and attribute == "colour" and rng.random() < 0.06:
        return lexicon.draw(lexicon.ABSENT_ADJECTIVES, rng)
    value = words and words[attribute]
    return lexicon.draw(lexicon.ADJECTIVES[attribute], rng, value)


def _noun(rng, words):
    if words is None and rng.random() < 0.08:
        return lexicon.draw(lexicon.ABSENT_NOUNS, rng)
    return lexicon.draw(lexicon.NOUNS, rng, words and words["shape"])


def _place(rng, words):
    table = (lexicon.PLACES, lexicon.COMPASS)[rng.random() < 0.2]
    return lexicon.draw(table, rng, words and words["position"])


def _noun_phrase(rng, words, least=1, without=()):
    """Text without an article, and claims: adjectives before a noun."""
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
        if len(claims) >= least:
            return " ".join(texts), tuple(claims)


def _nouns(text):
    """The slots of a noun phrase."""
    article = "an" if text[0] in "aeiou" else "a"
    plural = f"{text}es" if text.endswith(("x", "s")) else f"{text}s"
    return {"a": f"{article} {text}", "noun": text, "nouns": plural}


def quality(rng, words):
    """It is blue. It is not small."""
    attribute = _pick(("colour", "colour", "colour", "size", "shape"), rng)
    word = _word(attribute, rng, words)
    denied = words is None and rng.random() < 0.5
    if rng.random() < 0.3:
        ways = (frames.IS_NOT_OF if denied else frames.IS_OF)[attribute]
    else:
        ways = frames.IS_NOT if denied else frames.IS
    text = _fill(_pick(ways, rng), rng, adj=word.text)
    return Statement(text, (word.claim,), denied)


def thing(rng, words):
    """There is a blue circle. No triangle here."""
    text, claims = _noun_phrase(rng, words)
    denied = words is None and rng.random() < 0.5
    frame = _pick(frames.NOT_THERE if denied else frames.THERE, rng)
    return Statement(_fill(frame, rng, **_nouns(text)), claims, denied)


def place(rng, words):
    """It lies at the top left."""
    word = _place(rng, words)
    denied = words is None and rng.random() < 0.4
    frame = _pick(frames.LIES_NOT if denied else frames.LIES, rng)
    return Statement(_fill(frame, rng, place=word.text), (word.claim,), denied)


def thing_in_place(rng, words):
    """A blue circle in the middle."""
    text, claims = _noun_phrase(rng, words)
    word = _place(rng, words)
    frame = _pick(frames.LIES_THERE, rng)
    text = _fill(frame, rng, place=word.text, **_nouns(text))
    return Statement(text, (*claims, word.claim))


def predicate(rng, words):
    """The circle is blue. The blue shape is not on the left."""
    attribute = _pick(("colour", "size", "shape", "position"), rng)
    text, claims = _noun_phrase(rng, words, without=(attribute,))
    if attribute == "position":
        said = _place(rng, words)
    elif attribute == "shape" and rng.random() < 0.7:
        noun = _noun(rng, words)
        said = lexicon.Word(_nouns(noun.text)["a"], noun.claim)
    else:
        said = _word(attribute, rng, words)
    denied = words is None and rng.random() < 0.4
    verb = "is not" if denied else "is"
    text = _fill(f"the {text} {verb} {said.text}", rng)
    if not denied:
        return Statement(text, (*claims, said.claim))
    supposed = tuple(one.presupposed() for one in claims)
    return Statement(text, (*supposed, said.claim.denied()))


def two(rng, words):
    """It is small and blue. It is red, not blue. Red or blue."""
    attribute = _pick(("colour", "colour", "shape"), rng)
    if words is not None or rng.random() < 0.4:
        first, second = _word("size", rng, words), _word(attribute, rng, words)
        frame = _pick(("{it} is {one} and {two}", "{one} and {two}"), rng)
        claims = (first.claim, second.claim)
    else:
        first = second = _either(attribute, rng)
        while second.claim == first.claim:
            second = _either(attribute, rng)
        yes, no = first.claim, second.claim
        frame, claims = (
            ("{it} is {one}, not {two}", (yes, no.denied())),
            ("{it} is not {two} but {one}", (yes, no.denied())),
            ("{it} is neither {one} nor {two}", (yes.denied(), no.denied())),
            ("{it} is {one} or {two}", (_union(yes, no),)),
        )[rng.integers(4)]
    text = _fill(frame, rng, one=first.text, two=second.text)
    return Statement(text, claims)


def _either(attribute, rng):
    """An adjective, or a noun with its article."""
    if attribute != "shape":
        return _word(attribute, rng, None)
    noun = _noun(rng, None)
    return lexicon.Word(_nouns(noun.text)["a"], noun.claim)


def _union(one, two):
    return Claim(one.attribute, one.true | two.true, one.false & two.false)


def parts(rng, words):
    """It has three corners."""
    value = words and words["shape"]
    if value == "circle":
        return quality(rng, words)
    word = lexicon.draw(lexicon.PARTS, rng, value)
    denied = words is None and rng.random() < 0.5
    frame = "{it} does not have {parts}" if denied else "{it} has {parts}"
    return Statement(_fill(frame, rng, parts=word.text), (word.claim,), denied)


def number(rng, words):
    """There is one shape. There are two shapes."""
    if words is not None or rng.random() < 0.5:
        every = claim("shape", *ATTRIBUTES["shape"])
        return Statement(_fill(_pick(frames.ONE_SHAPE, rng), rng), (every,))
    return Statement(
        _fill(_pick(frames.MANY_SHAPES, rng), rng), (claim("shape"),)
    )


def untold(rng, words):
    """It is heavy: no picture says so."""
    return Statement(_fill(_pick(frames.UNTOLD, rng), rng), ())


# Shares of the kinds, of all sentences and of those that are true of a
# picture and worth a blank.
KINDS = {
    **{quality: 0.27, thing: 0.27, place: 0.11, thing_in_place: 0.08},
    **{predicate: 0.14, two: 0.05, parts: 0.03, number: 0.03, untold: 0.02},
}
TRUE_KINDS = {
    **{quality: 0.24, thing: 0.26, place: 0.14, thing_in_place: 0.16},
    **{predicate: 0.14, two: 0.04, parts: 0.02},
}


def statement(rng):
    """Draw a sentence, which may be true or false of a picture.

    Args:
        rng: `np.random.Generator`.

    Returns:
        `Statement`.

    Example:

    ```python
    statement(np.random.default_rng(0)).text
    ```
    """
    return _draw(KINDS, rng, None)


def true_statement(rng, words):
    """Draw a sentence that is true of a picture, without "not".

    Args:
        rng: `np.random.Generator`.
        words: dict from attribute to its word, as `Scenes.words`.

    Returns:
        `Statement`.

    Example:

    ```python
    scenes = load_scenes("validation")
    true_statement(np.random.default_rng(0), scenes.words(0)).text
    ```
    """
    return _draw(TRUE_KINDS, rng, words)


def _draw(kinds, rng, words):
    shares = np.array([*kinds.values()])
    kind = [*kinds][rng.choice(len(shares), p=shares / shares.sum())]
    made = kind(rng, words)
    return Statement(_written(made.text, rng), made.claims, made.denied)


def _fill(frame, rng, **words):
    """Put words into a frame, and draw those for the slots that are left."""
    text = frame.format_map(words | {k: f"{{{k}}}" for k in frames.SLOTS})
    return text.format_map({k: _pick(v, rng) for k, v in frames.SLOTS.items()})


def _written(text, rng):
    """As people write: with or without capital, contraction and full stop."""
    if rng.random() < 0.35:
        for long, short in frames.CONTRACTIONS.items():
            text = text.replace(long, short)
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
        text = text.replace(" i ", " I ")
    return text + _pick(("", ".", ".", ".", "", "!"), rng)
