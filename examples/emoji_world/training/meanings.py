"""What a dictionary says of emoji: descriptions in words that no name has."""

import re

import numpy as np

from emoji_world import english
from emoji_world import texts


def meanings(world, splits, wordnet, teacher):
    """For each emoji a definition of its name, or None.

    Of several senses (a lime is a fruit, and a powder) the one that is
    nearest to the keywords by MiniLM. None holds a word that is held out.

    Args:
        world: list of `Emoji`.
        splits: `Splits`.
        wordnet: path of the unpacked package.
        teacher: `KeptVectors`.
    """
    senses = english.senses(wordnet)
    found = []
    for emoji in world:
        said = [
            sense
            for sense in senses.get(emoji.name, ())
            if not splits.held_out_words & set(re.findall("[a-z]+", sense))
        ]
        words = ", ".join([emoji.name, *texts.words_of(emoji, splits)])
        found.append(_nearest(words, said, teacher) if said else None)
    return found


def _nearest(words, said, teacher):
    wanted, *given = teacher.of([words, *said]).astype("float32")
    return said[int(np.argmax(given @ wanted))]
