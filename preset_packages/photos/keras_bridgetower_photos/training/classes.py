"""Names, daily words and kinds of ImageNet's classes.

The names come from a package; `classes.json` has daily words and kinds, each
with the numbers of its classes in ImageNet's order.
"""

import json
import pathlib
from typing import NamedTuple

from keras_bridgetower_photos.training import questions

_TABLES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())

_FOLDER, _NAMES = "timm/data/_info", "imagenet_synset_to_lemma.txt"


class Class(NamedTuple):
    """One of ImageNet's classes."""

    names: tuple  # Its own, the usual one first: "tabby", "tabby cat".
    daily: tuple  # Words that also fit other classes: "cat".
    kind: str  # One of `things.KINDS`, or "" where none fits.
    meaning: str

    @property
    def words(self):
        """All that it is called."""
        return (*self.names, *self.daily)


def read(packages):
    """Read the classes from the folders that `packages.fetch` returns."""
    folder = packages["names"] / _FOLDER
    names = _table(folder / _NAMES)
    meanings = _table(folder / "imagenet_synset_to_definition.txt")
    own = (folder / "imagenet_synsets.txt").read_text().split()
    daily, kinds = daily_words(len(own)), kinds_of(len(own))
    return [
        Class(tuple(names[c].split(", ")), tuple(d), kind, meanings[c])
        for c, d, kind in zip(own, daily, kinds, strict=True)
    ]


def nouns(packages):
    """Return one of four nouns of the whole WordNet that ImageNet names."""
    names = _table(packages["names"] / _FOLDER / _NAMES)
    return sorted({name.split(", ")[0] for name in names.values()})[::4]


def daily_words(count):
    """Return the daily words for each of the first classes."""
    return _listed("daily words", count)


def kinds_of(count):
    """Return the kind of each of the first classes, `""` where none fits."""
    return [kinds[-1] if kinds else "" for kinds in _listed("kinds", count)]


def _listed(table, count):
    """Return the words of a table for each of the first classes."""
    found = [[] for _ in range(count)]
    for word, ranges in _TABLES[table].items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                if number < count:
                    found[number].append(word)
    return found


def answers(world, classes):
    """Return what the head can answer: words of the world, then of classes."""
    found = questions.answers(world)
    found += sorted({word for one in classes for word in one.daily})
    found += [one.names[0] for one in classes]
    return list(dict.fromkeys(found))


def _table(path):
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return {key: value.lower() for key, value in rows}
