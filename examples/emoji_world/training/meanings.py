"""What a dictionary says of emoji: descriptions in words that no name has."""

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
    said = [
        [
            sense
            for sense in senses.get(emoji.name, ())
            if not splits.keeps_back(sense)
        ]
        for emoji in world
    ]
    words = [
        ", ".join([emoji.name, *texts.words_of(emoji, splits)])
        for emoji in world
    ]
    # All at once, as the teacher is opened for each call.
    flat = [sense for several in said for sense in several]
    of = dict(zip([*words, *flat], teacher.of([*words, *flat]), strict=True))
    return [
        max(several, key=lambda sense: float(of[sense] @ of[wanted]))
        if several
        else None
        for wanted, several in zip(words, said, strict=True)
    ]
