"""*Fill the blank*: the words that fit each blank of a text."""

import dataclasses

from keras_bridgetower.apps.demo import models
from keras_bridgetower.preprocessing.texts import split_at_masks

_WORDS = 5


@dataclasses.dataclass(frozen=True)
class Filled:
    """What stands at the blanks of a text.

    Args:
        words: for each blank a list of `(word, probability)`, best first.
        parts: list of str, the text around the blanks: one more.
    """

    words: list
    parts: list


def fill(opened, image, text, preset):
    """Fill the blanks of a text about a picture.

    Args:
        opened: `DemoModels`.
        image: a picture.
        text: str, each blank written `<mask>`.
        preset: str.

    Returns:
        `Filled`.
    """
    task = opened.open(preset, models.FILL)
    masks, _ = task.fill_mask(image, text, top_k=_WORDS)
    words = [
        [(token.strip() or token, share) for token, share in tokens]
        for tokens in masks
    ]
    return Filled(words, split_at_masks(text))
