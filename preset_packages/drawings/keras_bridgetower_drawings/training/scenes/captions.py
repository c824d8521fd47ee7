"""Captions of scenes, in forms that belong to training or to its tests."""

import functools
import json
import pathlib
import re
from typing import NamedTuple

from keras_bridgetower_drawings.training.scenes.scenes import FACT

# Verbs that training puts for "is".
VERBS = ("is", "is", "sits", "lies", "stays", "rests", "is placed", "was put")
FORMS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())


class Caption(NamedTuple):
    """A caption and what it tells."""

    text: str
    facts: frozenset
    sort: str
    names: tuple  # Of the first things.
    nouns: tuple  # As they are told, as "red owl".

    def grade(self, scene):
        """Return from 0 to 3 how many of its facts hold; 3 if all do."""
        return 3 * len(self.facts & scene.facts) / len(self.facts)


def forms(sort, part):
    """Return the forms of a sort for a split."""
    return FORMS[sort][part]


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
    told = forms("alone" if _is_alone(sort, things) else sort, part)
    form = told[rng.integers(len(told))]
    if part == "training":
        form = _reworded(form, rng)
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


def _reworded(form, rng):
    """Return a form with another verb and other articles."""
    form = re.sub(r"\bis\b", str(rng.choice(VERBS)), form)
    for letter in "abAB":
        if rng.random() < 0.25:
            form = form.replace(f"{{{letter}}}", f"{{{letter.swapcase()}}}")
    return form


def _caption(form, sort, adjectives, things, ground):
    values, facts, nouns = {"ground": ground}, set(), []
    for letter, one in zip("ab", things, strict=False):
        noun = one.name
        facts.add(("there", one.name))
        if adjectives:
            noun = f"{one.color} {noun}"
            facts.add(("color", one.name, one.color))
        nouns.append(noun)
        values[letter] = with_article(noun)
        values[letter.upper()] = f"the {noun}"
        values[letter * 2] = noun
    if ground:
        facts.add(("ground", ground))
    if sort in FACT:
        facts.add((FACT[sort], *(one.name for one in things)))
    text = form.format(**values)
    names = tuple(one.name for one in things)
    return Caption(text, frozenset(facts), sort, names, tuple(nouns))


def with_article(noun):
    """Return a noun with "a" or "an", or alone if it is a plural."""
    if noun.endswith("s") and not noun.endswith(("ss", "us")):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
