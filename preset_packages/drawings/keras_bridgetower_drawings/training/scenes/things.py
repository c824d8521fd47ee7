"""The things that scenes show, and those that training never shows."""

import json
import pathlib
import re
from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training.emoji import packages
from keras_bridgetower_drawings.training.emoji import splits
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.scenes import captions

SEED = 2027
SPLITS = ("training", "validation", "test")
HELD_OUT = 0.15
# Each name must be among as many that are nearest to its drawings.
NEAREST = 5
KINDS = re.compile(
    "animal-|plant-|food-|drink|dishware|place-building|transport-|clothing"
    "|sound|musical|phone|computer|light|book|tool|household|mail|writing"
    "|office|science|medical|other-object|award|sport|game"
)
# Colors and sides of their own, what is no single thing, and near copies.
UNWANTED = re.compile(
    r"\b(left|right|black|white|green|red|blue|orange|oncoming|low|muted|small"
    r"|closed|open|incoming|linked|departure|arrival|face|clock|sign|suit"
    r"|customs|restroom|closet|claim|placard|wedding|cooking|construction|paw"
    r"|link|label|metro|station|tennis|bowling|cricket|fishing|broken|water"
    r"|pouring|clinking|increasing|decreasing|people|nose|fire|wilted|hot)\b"
)


class Thing(NamedTuple):
    """Something that scenes show."""

    name: str  # One or two words.
    drawings: dict  # From artist to uint8 `(64, 64, 4)`.


def _is_plain(name):
    return re.fullmatch("[a-z]+( [a-z]+)?", name) and not UNWANTED.search(name)


def candidates(emoji):
    """Return the numbers of concrete things of one or two words."""
    unknown = splits.split(emoji).held_out
    return [
        number
        for number, one in enumerate(emoji)
        if _is_plain(one.name)
        and KINDS.match(one.kind)
        # The towers have seen it.
        and not unknown[number]
        and world.UNSEEN_ARTIST in one.files
    ]


def find(task, emoji, numbers):
    """Return those whose names are near to their drawings of training."""
    names = task.embed(texts=[f"a drawing of {emoji[n].name}" for n in numbers])
    ranks = []
    for artist in world.ARTISTS[:3]:
        drawn = [world.drawing(emoji[n], artist) for n in numbers]
        blank = np.zeros((world.SIDE, world.SIDE, 4), "uint8")
        paper = [world.on_white(blank if d is None else d) for d in drawn]
        near = task.embed(images=paper) @ names.T
        before = (near > near.diagonal()[:, None]).sum(1)
        missing = [d is None for d in drawn]
        ranks.append(np.where(missing, NEAREST, before))
    known = np.median(ranks, 0) < NEAREST
    return [n for n, one in zip(numbers, known, strict=True) if one]


def split(names):
    """Return a split of names for each, always in the same way.

    Names with the same last word, as "dog" and "guide dog", are together.
    """
    words = sorted({name.split()[-1] for name in names})
    words = np.random.default_rng(SEED).permutation(words).tolist()
    count = round(HELD_OUT * len(words) / 2)
    part = dict.fromkeys(words, "training")
    part |= dict.fromkeys(words[:count], "validation")
    part |= dict.fromkeys(words[count : 2 * count], "test")
    return [part[name.split()[-1]] for name in names]


class Things:
    """All things with their drawings, by split.

    Args:
        folder: path of the folder with the packages. What was found is kept
            there.
        task: an embedding task, which finds the things the first time.
    """

    def __init__(self, folder, task=None):
        self.folder = pathlib.Path(folder)
        kept = self.folder / "things.npz"
        if not kept.exists():
            self._keep(kept, task)
        with np.load(kept) as file:
            self.drawings = file["drawings"]
            self.rows = json.loads(file["rows"].item())
        names = dict.fromkeys(name for name, _, known in self.rows if known)
        self.parts = dict(zip(names, split(list(names)), strict=True))

    def _keep(self, path, task):
        emoji = world.load(packages.fetch(self.folder / "packages"))
        known = set(find(task, emoji, candidates(emoji)))
        unknown = splits.split(emoji).held_out
        rows, drawings = [], []
        for number, one in enumerate(emoji):
            if unknown[number] or one.group == "flags":
                continue
            for artist in (*world.TRAINING_ARTISTS, world.UNSEEN_ARTIST):
                drawing = world.drawing(one, artist)
                if drawing is not None:
                    rows.append((one.name, artist, number in known))
                    drawings.append(drawing)
        np.savez(path, drawings=np.stack(drawings), rows=json.dumps(rows))

    def of(self, part):
        """Return the `Thing`s of a split, by the artists that it shows."""
        return self._things(lambda name: self.parts.get(name) == part, part)

    def wide(self):
        """Return all things of training, and others that are drawn alone."""
        return self._things(lambda name: True, "training")

    def called(self):
        """Return the things of `wide` whose names fit into captions."""
        return [t for t in self.wide() if _is_plain(t.name)]

    def words(self):
        """Return other words for things of training, without drawings.

        None has a word of a held-out thing in it, and none is a word of the
        grammar of captions.
        """
        emoji = world.load(packages.fetch(self.folder / "packages"))
        shown = {thing.name for thing in self.wide()}
        kept_back = self._last_words("validation") | self._last_words("test")
        found = {
            word
            for one in emoji
            if one.name in shown
            for word in one.keywords
            if _is_plain(word)
            and not any(known in word for known in kept_back)
            and not set(word.split()) & captions.WORDS
        }
        return [Thing(word, {"words": None}) for word in sorted(found - shown)]

    def _last_words(self, part):
        return {n.split()[-1] for n, p in self.parts.items() if p == part}

    def _things(self, wanted, part):
        """Return things; those of training have no word of a held-out one."""
        kept_back = set()
        if part == "training":
            kept_back = self._last_words("validation")
            kept_back |= self._last_words("test")
        found = {}
        rows = zip(self.rows, self.drawings, strict=True)
        for (name, artist, _), drawing in rows:
            unseen = artist == world.UNSEEN_ARTIST
            if kept_back & set(re.findall("[a-z]+", name)) or not wanted(name):
                continue
            if unseen == (part != "training"):
                thing = found.setdefault(name, Thing(name, {}))
                thing.drawings[artist] = drawing
        return list(found.values())
