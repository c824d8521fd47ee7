"""Captions of scenes: a grammar for training, and forms for its tests.

`captions.json` has the constructions of the grammar, as "{x} [be] {w} {y}", and
for each sort the pairs of words that enter them, as "left of" and "right of".
Each pair can be told from both sides: `x` is the first thing and `w` the first
word, or `x` is the second thing and `w` the second word. So each word of a
relation occurs in each construction.
"""

import functools
import json
import pathlib
import re
from typing import NamedTuple

from keras_bridgetower_drawings.training.scenes.scenes import FACT

GRAMMAR = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
# All words of the grammar, and of the other forms.
WORDS = frozenset(re.findall("[a-z]+", json.dumps(GRAMMAR)))
# A thing of a form: "an owl", "the owl" or "owl".
ARTICLES = ("{a}",) * 10 + ("{A}",) * 8 + ("{aa}",) * 2
LONGEST = 14  # Words, so that few captions are cut.


class Caption(NamedTuple):
    """A caption and what it tells."""

    text: str
    facts: frozenset
    sort: str
    names: tuple  # Of the first things.
    ends: tuple  # Of the nouns, as places in the text.

    def grade(self, scene):
        """Return from 0 to 3 how many of its facts hold; 3 if all do."""
        return 3 * len(self.facts & scene.facts) / len(self.facts)


def forms(sort, part):
    """Return the forms of a sort for a split that is not training."""
    return GRAMMAR["forms"][sort][part]


def new_form(sort, rng):
    """Return a form of the grammar that no other split has."""
    kinds = GRAMMAR["forms"][sort]["training"]
    while True:
        kind = kinds[rng.integers(len(kinds))]
        told = GRAMMAR["constructions"][kind["construction"]]
        form = told[rng.integers(len(told))]
        letters, words = "ab", ("", "")
        if "words" in kind:
            words = kind["words"][rng.integers(len(kind["words"]))]
            if rng.random() < 0.5:
                letters, words = letters[::-1], words[::-1]
        while found := re.search(r"\[(\w+)\]", form):
            choices = GRAMMAR["words"][found[1]]
            chosen = choices[rng.integers(len(choices))]
            form = form.replace(found[0], chosen, 1)
        form = form.replace("{w}", words[0]).replace("{v}", words[1])
        for old, new in zip("xy", letters, strict=True):
            article = ARTICLES[rng.integers(len(ARTICLES))]
            upper = new.upper()
            article = article.replace("a", new).replace("A", upper)
            form = form.replace(f"{{{old}}}", article)
            form = form.replace(f"{{{old * 2}}}", f"{{{new * 2}}}")
        form = " ".join(form.replace(" ,", ",").split())
        if len(form.split()) <= LONGEST and plain(form) not in _held_out():
            return form


def plain(form):
    """Return a form without its articles."""
    return re.sub(r"\{([abAB])\w?\}", lambda x: x[1].lower(), form)


@functools.cache
def _held_out():
    return {
        plain(form)
        for parts in GRAMMAR["forms"].values()
        for part, told in parts.items()
        if part != "training"
        for form in told
    }


def captions(scene, sort, part, rng, other=None):
    """Return a caption of a scene and its swapped caption, in one form.

    Args:
        scene: `Scene` that has a fact of the sort between its first things.
        sort: one of `SORTS`.
        part: the split whose forms are used.
        rng: a generator of NumPy.
        other: for `"thing"` and `"ground"` the near miss of the scene.

    Returns:
        Two `Caption`s. The swapped one is true of the near miss.
    """
    things = scene.things[:2]
    kind = "alone" if _is_alone(sort, things) else sort
    if part == "training":
        form = new_form(kind, rng)
    else:
        told = forms(kind, part)
        form = told[rng.integers(len(told))]
    # Colors may be told beside other facts.
    adjectives = sort == "color" or (
        all(one.color for one in things) and rng.random() < 0.3
    )
    say = functools.partial(_caption, form, sort, adjectives)
    if sort in FACT:
        if scene.relation(FACT[sort])[0] != things[0].name:
            things = things[::-1]
        return say(things, None), say(things[::-1], None)
    if sort == "color":
        if rng.random() < 0.5:
            things = things[::-1]
        colors = [one.color for one in things][::-1]
        swapped = [
            one._replace(color=color)
            for one, color in zip(things, colors, strict=True)
        ]
        return say(things, None), say(swapped, None)
    if sort == "ground":
        things = things[:1]
        return say(things, scene.ground), say(things, other.ground)
    order = -1 if rng.random() < 0.5 else 1
    return (
        say(things[::order], None),
        say(other.things[: len(things)][::order], None),
    )


def _is_alone(sort, things):
    return sort == "thing" and len(things) == 1


def _caption(form, sort, adjectives, things, ground):
    values, facts, marks = {"ground": ground}, set(), {}
    for letter, one in zip("ab", things, strict=False):
        noun = one.name
        facts.add(("there", one.name))
        if adjectives:
            noun = f"{one.color} {noun}"
            facts.add(("color", one.name, one.color))
        # Behind the noun, so that "ant" is not found in "elephant".
        mark = marks[letter] = f"<{letter}>"
        values[letter] = with_article(noun) + mark
        values[letter.upper()] = f"the {noun}{mark}"
        values[letter * 2] = noun + mark
    if ground:
        facts.add(("ground", ground))
    if sort in FACT:
        facts.add((FACT[sort], *(one.name for one in things)))
    text = form.format(**values)
    ends = [len(_unmarked(text.split(mark)[0])) for mark in marks.values()]
    names = tuple(one.name for one in things)
    text = _unmarked(text)
    return Caption(text, frozenset(facts), sort, names, tuple(ends))


def _unmarked(text):
    return re.sub("<[ab]>", "", text)


def with_article(noun):
    """Return a noun with "a" or "an", or alone if it is a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us")):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
