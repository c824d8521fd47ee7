"""English from WordNet: what its words mean, and how they are used."""

import pathlib
import random
import re

PARTS = ("noun", "verb", "adj", "adv")
RARE_WORDS = 30_000


def sentences(folder):
    """Definitions, examples and words, in lower case, each once.

    Args:
        folder: path of the unpacked package.

    Returns:
        list of str, in a fixed random order.
    """
    files = pathlib.Path(folder) / "package/dict"
    rng = random.Random(0)
    found, words = set(), set()
    for part in PARTS:
        for fields, meaning in _entries(files / f"data.{part}"):
            words.update(_words(fields))
            for definition in re.sub('"[^"]*"', "", meaning).split(";"):
                definition = definition.strip(" ;\n")
                if 8 <= len(definition) <= 90:
                    found.add(definition.lower())
            examples = re.findall('"([^"]+)"', meaning)
            if rng.random() < 0.5:
                found.update(e.lower() for e in examples if len(e) <= 70)
    found |= _common(files / "index.sense")
    found.update(rng.sample(sorted(words), RARE_WORDS))
    found = sorted(found)
    rng.shuffle(found)
    return found


def senses(folder):
    """What each noun may mean: dict from noun to a list of definitions."""
    files = pathlib.Path(folder) / "package/dict"
    # By the place that the index names.
    at = {
        fields[0]: meaning.split(";")[0].strip().lower()
        for fields, meaning in _entries(files / "data.noun")
    }
    found = {}
    for line in (files / "index.noun").open(encoding="utf-8"):
        if not line.startswith("  "):
            noun, _, count, *rest = line.split()
            places = rest[-int(count) :]
            found[noun.replace("_", " ")] = [at[place] for place in places]
    return found


def _entries(path):
    """The fields of each line, and what stands after them: its meaning."""
    for line in path.open(encoding="utf-8"):
        head, bar, meaning = line.partition("|")
        if bar and not line.startswith("  "):
            yield head.split(), meaning


def _words(fields):
    """The words of a line: their number in hexadecimal, then each."""
    for i in range(int(fields[3], 16)):
        word = fields[4 + 2 * i].replace("_", " ").split("(")[0].lower()
        if re.fullmatch("[a-z' -]+", word):
            yield word


def _common(path):
    """Words that were counted at least once in WordNet's own texts."""
    found = set()
    for line in path.open(encoding="utf-8"):
        sense, _, _, count = line.split()
        if int(count):
            found.add(sense.split("%")[0].replace("_", " "))
    return found
