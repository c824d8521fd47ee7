"""Draw questions about drawings with one-word answers."""

import json
import pathlib
import re

from keras_bridgetower_drawings.training.easy import spelling
from keras_bridgetower_drawings.training.emoji.colors import COLORS
from keras_bridgetower_drawings.training.emoji.texts import SPELLED
from keras_bridgetower_drawings.training.reports import draw

_TABLES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
GROUPS = _TABLES["groups"]
# A kind in one word.
KINDS = _TABLES["kinds"]
# Patterns of the group and kind of an emoji that is such a thing.
IS_IT = _TABLES["is it"]
# Unicode counts these among the vehicles.
NO_VEHICLES = _TABLES["no vehicles"]
ASK_GROUP = ("which group does it belong to?", "what group is this in?")
ASK_KIND = ("what kind of thing is it?", "what is it?")
ASK_COLOR = ("what color is it mostly?", "which color does it have?")
ASK_IS = ("is this {}?", "is it {}?", "do you see {} here?")
TYPES = ("group", "kind", "color", "yes or no", "is it that color")
ANSWERS = sorted({"yes", "no", *GROUPS.values(), *KINDS.values(), *COLORS})


def facts(emoji, color):
    found = [("group", ASK_GROUP, GROUPS[emoji.group])]
    kind = None if emoji.name in NO_VEHICLES else emoji.kind
    if kind in KINDS:
        found.append(("kind", ASK_KIND, KINDS[kind]))
    place = f"{emoji.group}/{kind}"
    for thing, pattern in IS_IT.items():
        answer = "yes" if re.search(pattern, place) else "no"
        ways = tuple(way.format(thing) for way in ASK_IS)
        found.append(("yes or no", ways, answer))
    if color:
        found.append(("color", ASK_COLOR, color))
        for other in COLORS:
            ways = (f"is it mostly {other}?", f"is this {other}?")
            answer = "yes" if other == color else "no"
            found.append(("is it that color", ways, answer))
    return [
        (kind, _both_spellings(ways), answer) for kind, ways, answer in found
    ]


def _both_spellings(ways):
    return tuple(one for way in ways for one in spelling.both(way, SPELLED))


def question(emoji, color, rng):
    """Draw a question: types are equally frequent, and so are yes and no."""
    every = facts(emoji, color)
    kinds = sorted({kind for kind, _, _ in every})
    kind = draw(kinds, rng)
    chosen = [fact for fact in every if fact[0] == kind]
    yes = [fact for fact in chosen if fact[2] == "yes"]
    no = [fact for fact in chosen if fact[2] == "no"]
    if yes and no:
        chosen = yes if rng.random() < 0.5 else no
    _, ways, answer = draw(chosen, rng)
    return kind, draw(ways, rng), answer
