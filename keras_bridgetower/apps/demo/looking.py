"""*Look inside*: the attention of one word, layer and head."""

import dataclasses

from keras_bridgetower.analysis import attention_map
from keras_bridgetower.analysis.maps import features_of_pair
from keras_bridgetower.apps.demo import models
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.overlays import overlay

# What stands for all words, and for all heads.
WHOLE, EVERY_HEAD = "whole text", "all heads"


@dataclasses.dataclass(frozen=True)
class Look:
    """Where one word of a text looks.

    Args:
        layers, heads: int, how many the model has.
        words: list of str, the words of the text.
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
        word: int from 0, the number of a word, or None for the whole text.

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
    words = _whole_words(task, image, text)
    if word is not None and not 0 <= word < len(words):
        word = None
    if word is None:
        weights, named = seen.whole, WHOLE
    else:
        name, tokens = words[word]
        weights, named = seen.word_maps[tokens].mean(0), f"“{name}”"
    by = EVERY_HEAD if head is None else f"head {head}"
    return Look(
        fusion.num_layers,
        fusion.num_heads,
        [name for name, _ in words],
        [float(seen.word_weights[tokens].sum()) for _, tokens in words],
        overlay(seen.pictures[0], weights[0]),
        f"“{text}” · {named} · layer {layer} of {fusion.num_layers} · {by}",
    )


def _whole_words(task, image, text):
    """Return the words of a text, each with the numbers of its tokens."""
    features = features_of_pair(task, image, text)
    # Without the start and end tokens, as in an `AttentionMap`.
    ids = features["token_ids"][0][features["padding_mask"][0] == 1][1:-1]
    tokenizer = task.preprocessor.tokenizer
    words, before, after_special = [], "", True
    for number, token in enumerate(ids.tolist()):
        until = tokenizer.detokenize(ids[: number + 1].tolist())
        # A special token, such as a mask, has no text, and is a word.
        special = not tokenizer.detokenize([token])
        if special or after_special or until[len(before) :][:1].isspace():
            words.append([])
        words[-1].append(number)
        before, after_special = until, special
    return [
        (
            tokenizer.detokenize(ids[tokens].tolist()).strip()
            or tokenizer.id_to_token(int(ids[tokens[0]])),
            tokens,
        )
        for tokens in words
    ]
