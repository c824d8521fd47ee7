"""The words in which people speak of the world's pictures, and what they claim.

Each table goes from a claim to the ways of saying it, the plainest first.
Every way stands for the same claim, so a synonym can never change a label.
"""

import dataclasses

from easy_world.meaning import Claim
from easy_world.meaning import claim

# How often the plainest way is taken, when there are several.
PLAINEST = 0.6


@dataclasses.dataclass(frozen=True)
class Word:
    """A word or phrase, and what it claims of the shape.

    Args:
        text: str.
        claim: `Claim`.
    """

    text: str
    claim: Claim


def _values(attribute, ways):
    """A table of claims, from one of ways of saying each value."""
    return {claim(attribute, value): said for value, said in ways.items()}


_COLOURS = {
    "black": ("black",),
    "gray": ("gray", "grey"),
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "teal": ("teal", "turquoise"),
    "brown": ("brown",),
}
_SHAPES = {
    "circle": ("circle", "disc", "disk", "dot"),
    "rectangle": ("rectangle", "box"),
    "triangle": ("triangle",),
}
_SIZES = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "middle-sized"),
    "large": ("large", "big", "huge"),
}
# Adjectives of what the pictures show, and of what none of them shows.
ADJECTIVES = {
    "colour": _values("colour", _COLOURS),
    "size": _values("size", _SIZES),
    "shape": {
        claim("shape", "circle"): ("round", "circular"),
        claim("shape", "rectangle"): ("rectangular",),
        claim("shape", "triangle"): ("triangular",),
    },
}
NOUNS = _values("shape", _SHAPES)
ABSENT_ADJECTIVES = {
    claim("colour"): ("purple", "pink", "orange", "white", "violet", "golden")
}
ABSENT_NOUNS = {
    claim("shape"): (
        *("star", "dog", "cat", "house", "tree", "heart", "car", "line"),
        *("ring", "hexagon", "cross", "face", "flower", "letter", "bird"),
    )
}
# Where corners and sides tell the shape.
PARTS = {
    claim("shape", "triangle"): ("three corners", "three sides"),
    claim("shape", "rectangle"): ("four corners", "four sides"),
    claim("shape", "triangle", "rectangle"): ("corners", "straight sides"),
}


_TOP = ("northwest", "north", "northeast")
_BOTTOM = ("southwest", "south", "southeast")
_LEFT = ("northwest", "west", "southwest")
_RIGHT = ("northeast", "east", "southeast")
_CORNERS = ("northwest", "northeast", "southwest", "southeast")


def _place(*cells, undecided=()):
    return claim("position", *cells, undecided=undecided)


def _corner(row, other, column):
    """Ways of naming a corner."""
    return (
        f"at the {row} {column}",
        f"in the {row} {column} corner",
        f"in the {row} {column}",
        f"at the {other} {column}",
        f"in the {other} {column}",
        f"in the {other} {column} corner",
        f"in the {other} {column} part",
        f"in the {row} {column}-hand corner",
        f"at the {row} {column} of the {{picture}}",
    )


def _compass(name):
    """Ways of naming a part by the compass."""
    return f"in the {name}", f"to the {name}"


# A slot {picture} becomes a word for it. "The north" may mean the whole upper
# side, so that it is undecided of its corners.
PLACES = {
    _place("northwest"): _corner("top", "upper", "left"),
    _place("northeast"): _corner("top", "upper", "right"),
    _place("southwest"): _corner("bottom", "lower", "left"),
    _place("southeast"): _corner("bottom", "lower", "right"),
    _place("center"): (
        *("in the middle", "in the center", "in the centre", "at the center"),
        *("in the middle of the {picture}", "in the center of the {picture}"),
        *("right in the middle", "at the centre of the {picture}"),
    ),
    _place(*_LEFT): (
        *("on the left", "at the left", "on the left side", "to the left"),
        *("on the left of the {picture}", "on the left side of the {picture}"),
        *("in the left part", "on the left-hand side"),
    ),
    _place(*_RIGHT): (
        *("on the right", "at the right", "on the right side", "to the right"),
        *("on the right of the {picture}", "in the right part"),
        *("on the right side of the {picture}", "on the right-hand side"),
    ),
    _place(*_TOP): (
        *("at the top", "near the top", "in the top part", "high up"),
        *("at the top of the {picture}", "in the upper part"),
    ),
    _place(*_BOTTOM): (
        *("at the bottom", "near the bottom", "in the bottom part", "low down"),
        *("at the bottom of the {picture}", "in the lower part"),
    ),
    _place(*_CORNERS): ("in a corner", "in one of the corners"),
}
# The same by the compass, which names each of the nine parts.
COMPASS = {
    **{_place(name): _compass(name) for name in _CORNERS},
    _place("center"): _compass("center")[:1],
    _place("north", undecided=_TOP[::2]): _compass("north"),
    _place("south", undecided=_BOTTOM[::2]): _compass("south"),
    _place("west", undecided=_LEFT[::2]): _compass("west"),
    _place("east", undecided=_RIGHT[::2]): _compass("east"),
}


def draw(table, rng, value=None):
    """Draw a word from a table.

    Args:
        table: dict from `Claim` to ways of saying it.
        rng: `np.random.Generator`.
        value: str, which the claim must be true of; None: any claim.

    Returns:
        `Word`.

    Raises:
        ValueError: no claim of the table is true of the value.

    Example:

    ```python
    draw(ADJECTIVES["colour"], np.random.default_rng(0), "gray").text
    # "gray" or "grey"
    ```
    """
    fit = [one for one in table if value is None or value in one.true]
    if not fit:
        known = sorted(set().union(*(one.true for one in table)))
        raise ValueError(
            f"`value` must be one of {known}. Received: value={value!r}"
        )
    drawn = fit[rng.integers(len(fit))]
    ways = table[drawn]
    way = 0 if rng.random() < PLAINEST else rng.integers(len(ways))
    return Word(ways[way], drawn)
