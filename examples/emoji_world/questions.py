"""Questions with one-word answers about the drawings, from facts."""

import re

from easy_world import spelling

from emoji_world.colors import COLORS
from emoji_world.texts import SPELLED

GROUPS = {
    "smileys & emotion": "smileys",
    "people & body": "people",
    "animals & nature": "nature",
    "food & drink": "food",
    "travel & places": "travel",
    "activities": "activities",
    "objects": "objects",
    "symbols": "symbols",
    "flags": "flags",
}
# Whether an emoji is one: a pattern that its group and kind match.
IS_IT = {
    "an animal": r"nature/animal-|emotion/(cat|monkey)",
    "a bird": "animal-bird",
    "a bug": "animal-bug",
    "a plant": "nature/plant-",
    "a face": "emotion/(face|cat|monkey)",
    "a heart": "emotion/heart",
    "a person": "body/(person|family)",
    "a hand": "body/hand",
    "a flag": "^flags/",
    "food": "drink/food-",
    "a fruit": "food-fruit",
    "a vegetable": "food-vegetable",
    "a drink": "drink/drink",
    "a vehicle": "transport-(ground|air|water)",
    "a building": "place-(building|religious)",
    "a sport": "activities/sport|person-sport",
    "a musical instrument": "objects/musical-instrument",
    "clothing": "objects/clothing",
    "a tool": "objects/tool",
    "an arrow": "symbols/arrow",
    "a clock": r"travel & places/time",
}
# Unicode counts these among the vehicles.
NO_VEHICLES = (
    "anchor",
    "bus stop",
    "construction",
    "fuel pump",
    "horizontal traffic light",
    "motorway",
    "oil drum",
    "police car light",
    "railway track",
    "ring buoy",
    "seat",
    "stop sign",
    "vertical traffic light",
    "wheel",
)
# The smaller kinds of a group, in one word.
KINDS = {
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-reptile": "reptile",
    "animal-amphibian": "amphibian",
    "animal-marine": "sea animal",
    "animal-bug": "bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "dish",
    "food-asian": "asian food",
    "food-sweet": "sweet",
    "drink": "drink",
    "transport-ground": "land vehicle",
    "transport-air": "aircraft",
    "transport-water": "boat",
    "place-building": "building",
    "clothing": "clothing",
    "tool": "tool",
    "musical-instrument": "instrument",
    "sport": "sport",
    "country-flag": "country flag",
    "zodiac": "zodiac sign",
    "arrow": "arrow",
}
ASK_GROUP = ("which group does it belong to?", "what group is this in?")
ASK_KIND = ("what kind of thing is it?", "what is it?")
ASK_COLOR = ("what color is it mostly?", "which color does it have?")
ASK_IS = ("is this {}?", "is it {}?", "do you see {} here?")
TYPES = ("group", "kind", "color", "yes or no", "is it that color")
ANSWERS = sorted({"yes", "no", *GROUPS.values(), *KINDS.values(), *COLORS})


def facts(emoji, color):
    """Return all questions: `(type, ways of asking, answer)` each.

    The ways of asking are in American and in British spelling.

    Args:
        emoji: `Emoji`.
        color: str, the main color of the drawing that is shown, or None.

    Returns:
        list of `(str, tuple of str, str)`.
    """
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
        (
            kind,
            tuple(one for way in ways for one in spelling.both(way, SPELLED)),
            answer,
        )
        for kind, ways, answer in found
    ]


def question(emoji, color, rng):
    """One question: each type alike often, and as much yes as no."""
    every = facts(emoji, color)
    kinds = sorted({kind for kind, _, _ in every})
    kind = kinds[rng.integers(len(kinds))]
    chosen = [fact for fact in every if fact[0] == kind]
    yes = [fact for fact in chosen if fact[2] == "yes"]
    no = [fact for fact in chosen if fact[2] == "no"]
    if yes and no:
        chosen = yes if rng.random() < 0.5 else no
    _, ways, answer = chosen[rng.integers(len(chosen))]
    return kind, ways[rng.integers(len(ways))], answer
