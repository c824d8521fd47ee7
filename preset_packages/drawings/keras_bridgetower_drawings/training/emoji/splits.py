"""Split the world: some emoji, words and one artist are held out.

Similar drawings share a split: emoji that any artist draws nearly alike are one
"look". Skin tones are left out.
"""

import re
from typing import NamedTuple

import numpy as np

from keras_bridgetower_drawings.training.emoji.world import ARTISTS
from keras_bridgetower_drawings.training.emoji.world import drawing
from keras_bridgetower_drawings.training.emoji.world import on_white

SEED = 2026
HELD_OUT_FAMILIES = 50
HELD_OUT_WORDS = 120
# Mean difference of pixels, of 255, below which two drawings look alike.
ALIKE = 1.5
# Their names cannot be guessed from the look, so these are not held out.
BY_HEART = ("flags", "symbols")


class Splits(NamedTuple):
    """A split of the world."""

    looks: np.ndarray  # int32 `(emoji,)`, equal for emoji that look alike.
    held_out: np.ndarray  # bool `(emoji,)`, those that training never sees.
    # Keywords that training never sees beside a drawing.
    held_out_words: frozenset

    def keeps_back(self, text):
        return bool(self.held_out_words & set(re.findall("[a-z]+", text)))


def split(world):
    """Split a list of `Emoji`, always in the same way."""
    rng = np.random.default_rng(SEED)
    looks = find_looks(world)
    free = np.array([emoji.group not in BY_HEART for emoji in world])
    # Drawings of men, women and persons differ little, so whole families
    # are held out: what has the same name but for them.
    families = np.array([_family(emoji.name) for emoji in world])
    names = sorted(set(families[free]))
    held_out = np.isin(families, rng.choice(names, HELD_OUT_FAMILIES, False))
    held_out |= np.isin(looks, looks[held_out])
    return Splits(looks, held_out, _held_out_words(world, held_out, rng))


def find_looks(world):
    """Number the emoji; those that an artist draws nearly alike are equal."""
    number = np.arange(len(world), dtype="int32")
    small = [shrunk(world, artist) for artist in ARTISTS]
    for i in range(len(world)):
        differences = [
            np.abs(pictures[i + 1 :] - pictures[i]).mean((1, 2, 3))
            for pictures in small
        ]
        # Drawings that are missing are NaN, which no comparison finds.
        alike = np.any([d < ALIKE for d in differences], axis=0)
        for j in np.flatnonzero(alike) + i + 1:
            number[number == number[j]] = number[i]
    return number


def shrunk(world, artist):
    """Return small drawings: float32 `(emoji, 32, 32, 3)`, NaN if missing."""
    pictures = np.full((len(world), 32, 32, 3), np.nan, "float32")
    for i, emoji in enumerate(world):
        drawn = drawing(emoji, artist)
        if drawn is not None:
            paper = on_white(drawn).astype("float32")
            pictures[i] = paper.reshape(32, 2, 32, 2, 3).mean((1, 3))
    return pictures


def _family(name):
    name = re.sub(r"\b(wo)?man\b|\bperson\b|\b(wo)?men\b|\bpeople\b", "", name)
    name = re.sub(r"\b(boy|girl|child)\b|facing right", "", name)
    return re.sub(r"[^a-z0-9]+", " ", name).strip() or "person"


def _held_out_words(world, held_out, rng):
    in_names = {word for emoji in world for word in emoji.name.split()}
    uses = {}  # By word, whether each of its emoji rules it out.
    for emoji, out in zip(world, held_out, strict=True):
        for word in emoji.keywords:
            uses.setdefault(word, []).append(out or emoji.group in BY_HEART)
    candidates = sorted(
        word
        for word, outs in uses.items()
        if re.fullmatch("[a-z]{4,}", word)
        and word not in in_names
        and word + "s" not in in_names
        and word.rstrip("s") not in in_names
        and len(outs) <= 6
        and not any(outs)
    )
    return frozenset(rng.choice(candidates, HELD_OUT_WORDS, False).tolist())
