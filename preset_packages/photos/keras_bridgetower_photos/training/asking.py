"""Questions after an exchange of classes, and others for training alone."""

import re

from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import swapping
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import words

# Asked before "is it on the left?".
SIDES = (
    "is {a} on the left or on the right of {b}?",
    "on which side of {b} is {a}?",
    "on what side of {b} do you see {a}?",
    "seen from {b}, on which side is {a}?",
)
OPPOSITE = {"left": "right", "right": "left"}
_KINDS = {w: kind for kind in things.KINDS for w in (kind, words.plural(kind))}


def ask(swap, question, nouns, rng):
    """Return a question about the new things, or None where that fails.

    `question` and the result are `(text, answer, other answers, sort)`; `nouns`
    are those of the scene.
    """
    text, answer, others, sort = question[:4]
    found = None
    if sort in WAYS:
        found = WAYS[sort](swap, text, answer, nouns, rng)
    elif sort in swapping.SORTS:
        told = swap.rename(text, nouns, rng)
        found = told and (told, answer, others)
    return found and (*found, sort)


def of_sides(question, rng):
    """Return a question about left and right, and its open form, or none.

    "Is it on the left?" is hard to learn: it compares two places, and the
    result with a word. The open form asks for the first step alone.
    """
    text, answer, _, _, wording = question
    found = wording in _NAMING and _NAMING[wording].search(text)
    if not found:
        return []
    side = found["side"].lower()
    side = side if answer == "yes" else OPPOSITE[side]
    way = SIDES[rng.integers(len(SIDES))]
    told = way.format(
        **{name: found[name].replace("The ", "the ") for name in ("a", "b")}
    )
    return [(text, answer, (), "is left"), (told, side, (), "side")]


def _naming(wording):
    """Return a pattern of a wording with words put in."""
    pattern = re.escape(wording.removesuffix("?").removesuffix(", right"))
    for name, told in (
        ("a", "the .+?"),
        ("b", "the [^?,]+"),
        ("side", "left|right"),
    ):
        place = re.escape(f"{{{name}}}")
        pattern = pattern.replace(place, f"(?P<{name}>{told})")
    return re.compile(pattern, re.IGNORECASE)


_NAMING = {way: _naming(way) for way in questions.WAYS["is left"]}


def _noun(swap, text, answer, nouns, rng):
    new = answer in nouns and swap.became(answer, nouns)
    if not new:
        return None
    text = _say_kind(swap, text, answer, new.kind)
    return text and (text, new.names[0], new.words)


def _kind(swap, text, answer, nouns, rng):
    meant = [noun for noun in nouns if swap.swaps.kind_of[noun] == answer]
    new = len(meant) == 1 and swap.became(meant[0], nouns)
    if not new or not new.kind:
        return None
    text = _say_kind(swap, text, meant[0], new.kind)
    return text and (text, new.kind, new.words)


def _is_kind(swap, text, answer, nouns, rng):
    new = len(nouns) == 1 and swap.became(nouns[0], nouns)
    if not new or not new.kind:
        return None
    if answer == "yes":
        text = _say_kind(swap, text, nouns[0], new.kind)
        return text and (text, answer, ())
    asked = {kind for word, kind in _KINDS.items() if word in text}
    false = all(_are_apart(kind, new.kind) for kind in asked)
    return (text, answer, ()) if false else None


def _which(swap, text, answer, nouns, rng):
    new = answer in nouns and swap.became(answer, nouns)
    text = new and swap.rename(text, nouns, rng)
    return (text, new.names[0], new.words) if text else None


# The others have answers that name nothing.
WAYS = {
    **{"noun": _noun, "kind": _kind, "is kind": _is_kind},
    **dict.fromkeys(("larger", "depth"), _which),
}


def _say_kind(swap, text, noun, new):
    """Replace the kind of a noun; return None if that is impossible."""
    fixed = swap.swaps.fixed
    if not new:
        return None if fixed.search(text) else text
    old, forms = swap.swaps.kind_of[noun], {}
    for one, other in ((things.BROAD[old], _broad(new)), (old, new)):
        forms |= {one: other, words.plural(one): words.plural(other)}
    pattern = swapping.pattern_of(forms)
    if fixed.search(pattern.sub("", text)):
        return None

    def put(match):
        word = forms[match[2].lower()]
        word = words.with_article(word) if match[1] else word
        return swapping.begun(match, word)

    return pattern.sub(put, text)


def _broad(kind):
    broad = things.BROAD[kind]
    return kind if broad == "place" else broad


def _are_apart(kind, other):
    """Return True if nothing is of both kinds."""
    broad, others = things.BROAD[kind], things.BROAD[other]
    return broad != others or (kind != other and broad == "animal")
