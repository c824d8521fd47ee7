"""Draw captions in many ways of saying, and the texts of scores."""

import json
import pathlib

from keras_bridgetower_drawings.training.easy import spelling
from keras_bridgetower_drawings.training.reports import draw

# The words that are spelled in both ways. A flying disc is no disk.
SPELLED = ("color", "gray")

# `{x}` is a name or a keyword, `{a}` the same with an article. The first are
# for training; the others are read by the scores alone.
_TABLES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
WAYS, NEW_WAYS, JOINS = (_TABLES[n] for n in ("ways", "new ways", "joins"))


def words_of(emoji, splits):
    """Return the keywords of an emoji without held-out words."""
    return [word for word in emoji.keywords if not splits.keeps_back(word)]


# How often a caption is what a dictionary says, where it says something.
MEANT = 0.2


def caption(emoji, color, splits, rng, meaning=None):
    """Draw a training caption, at times the dictionary's `meaning`."""
    if meaning and rng.random() < MEANT:
        return meaning
    words = words_of(emoji, splits)
    share = rng.random()
    if share < 0.45 or not words:
        said = _short_name(emoji, rng)
    elif share < 0.7:
        said = draw(words, rng)
    else:
        parts = rng.permutation([emoji.name, *words])
        parts = list(map(str, parts[: rng.integers(2, 4)]))
        said = parts[0]
        for part in parts[1:]:
            said = draw(JOINS, rng).format(said, part)
    if color and rng.random() < 0.15:
        said = f"{color} {said}"
    said = phrase(draw(WAYS, rng), said)
    said = draw(spelling.both(said, SPELLED), rng)
    if rng.random() < 0.15:
        said = said.capitalize()
    return said + "." if rng.random() < 0.1 else said


def ask_anew(name, number):
    """Phrase a name in a way that training does not use."""
    return phrase(NEW_WAYS[number % len(NEW_WAYS)], name)


def phrase(way, said):
    return way.format(x=said, a=with_article(said))


def with_article(said):
    """Return `"an eye"` for `"eye"`, and `"eyes"` unchanged."""
    first = said.split(" ")[-1] if " " in said else said
    if first.endswith("s") or not said[:1].isalpha():
        return said
    return ("an " if said[0] in "aeiou" else "a ") + said


def _short_name(emoji, rng):
    """Draw the name; of `"flag: france"` at times the country alone."""
    before, colon, after = emoji.name.partition(": ")
    if not colon:
        return emoji.name
    ways = (emoji.name, f"{before} {after}", f"{before} of {after}", after)
    return draw(ways, rng)
