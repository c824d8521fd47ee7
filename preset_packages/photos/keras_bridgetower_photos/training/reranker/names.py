"""Vectors of names, as MiniLM reads them, in a space of few directions."""

import functools
import re
from typing import NamedTuple

import numpy as np
from keras_bridgetower_drawings.training.emoji.model import SPACE
from keras_bridgetower_drawings.training.scenes import captions

from keras_bridgetower.convert import unimodal
from keras_bridgetower.models.towers import Tower
from keras_bridgetower_photos.training import classes
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training.reranker.world import World
from keras_bridgetower_photos.training.things import SPLITS


class Names(NamedTuple):
    """Names of one or two words, and ImageNet's classes, in one space."""

    words: tuple
    vectors: np.ndarray  # float32 `(words, SPACE)`, of length 1.
    classes: np.ndarray  # float32 `(1000, SPACE)`.
    called: tuple  # A word for each class, `""` where none fits captions.

    @property
    def rows(self):
        """The row of each word."""
        return {word: row for row, word in enumerate(self.words)}


def read(packages, world):
    """Return `Names`: words of the world, of ImageNet and of WordNet.

    The names of things that no picture of training shows are among them, as
    MiniLM knows them too.
    """
    source = packages["minilm"] / model.MINILM
    tower = Tower(unimodal.text_encoder(source), (-1,), summary="mean")
    tokenizer = unimodal.tokenizer(source, model.TOKENS)
    vectors = functools.partial(model.text_vectors, tower, tokenizer)
    known = classes.read(packages)
    nouns = classes.nouns(packages)
    words = {word.lower() for one in known for word in one.words}
    words |= {noun.lower() for noun in nouns}
    words = {word for word in words if re.fullmatch("[a-z]+( [a-z]+)?", word)}
    for split in SPLITS:
        words.update(World(world, split).every)
    # None has a word that captions use otherwise.
    words = {w for w in words if not set(w.split()) & captions.WORDS}
    called = [
        next((w.lower() for w in one.words if w.lower() in words), "")
        for one in known
    ]
    words = sorted(words)
    ways = (
        [one.names[0] for one in known],
        [", ".join(one.names) for one in known],
        [f"{one.names[0]}: {one.meaning}" for one in known],
    )
    of_nouns = vectors(nouns)
    middle = of_nouns.mean(0)
    _, _, directions = np.linalg.svd(of_nouns, full_matrices=False)
    directions = directions[:SPACE].T
    of_classes = np.mean([vectors(way) for way in ways], axis=0) - middle
    of_words = (vectors(words) - middle) @ directions
    of_words /= np.linalg.norm(of_words, axis=1, keepdims=True)
    return Names(tuple(words), of_words, of_classes @ directions, tuple(called))
