"""*Look inside*: the attention of one word, layer and head."""

import dataclasses

from keras_bridgetower.analysis import attention_map
from keras_bridgetower.demo import models
from keras_bridgetower.demo.inputs import RefusedInput
from keras_bridgetower.demo.overlays import overlay

# What stands for all words, and for all heads.
WHOLE, EVERY_HEAD = "whole text", "all heads"


@dataclasses.dataclass(frozen=True)
class Look:
    """Where one word of a text looks.

    Args:
        layers, heads: int, how many the model has.
        words: list of str, the tokens of the text.
        weights: list of float, how much each counts for the whole text.
        picture: `PIL.Image.Image`, the attention over the picture.
        shown: str, whose attention it is.
    """

    layers: int
    heads: int
    words: list
    weights: list
    picture: object
    shown: str


def look(opened, image, text, preset, layer, head=None, word=None):
    """The attention of a word over a picture.

    Args:
        opened: `DemoModels`.
        image: a picture.
        text: str.
        preset: str.
        layer: int, from 1, the lowest. Above the last one the last is shown.
        head: int from 1, or None for the mean of all.
        word: int from 0, the number of a token, or None for the whole text.

    Returns:
        `Look`.
    """
    task = opened.open(preset, *models.LOOK)
    fusion = task.backbone.fusion
    layer = min(max(int(layer or 1), 1), fusion.num_layers)
    if head is not None and not 1 <= head <= fusion.num_heads:
        head = None
    seen = attention_map(
        task, image, text, layer - 1, None if head is None else head - 1
    )
    if not seen.words:
        raise RefusedInput("The model reads no word of this text.")
    if word is not None and not 0 <= word < len(seen.words):
        word = None
    weights = seen.whole if word is None else seen.word_maps[word]
    named = WHOLE if word is None else f"“{seen.words[word]}”"
    by = EVERY_HEAD if head is None else f"head {head}"
    return Look(
        fusion.num_layers,
        fusion.num_heads,
        seen.words,
        [float(weight) for weight in seen.word_weights],
        overlay(seen.pictures[0], weights[0]),
        f"{named} · layer {layer} of {fusion.num_layers} · {by}",
    )
