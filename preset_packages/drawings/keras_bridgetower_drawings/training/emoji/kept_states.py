"""Keep the states of the frozen towers, and draw wrong captions.

Steps from kept states take a fraction of the time.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji.model import hide_tokens
from keras_bridgetower_drawings.training.emoji.world import on_white

VARIED = 8  # Of each drawing: one unchanged, half with their own colors.
CAPTIONS = 16  # Of each emoji.
# Of a caption's words, and at most so many tokens.
HIDDEN, MOST_HIDDEN = 0.7, 6
MASKINGS = 2  # Of each caption.
BATCH = 128


class Texts(NamedTuple):
    """Texts as the fusion reads them."""

    states: np.ndarray  # float16 `(texts, layers, tokens, width)`.
    padding_mask: np.ndarray  # int32 `(texts, tokens)`.


class Masked(NamedTuple):
    """Texts with hidden words, and what was hidden."""

    texts: Texts
    places: np.ndarray  # int32 `(texts, MOST_HIDDEN)`, 0 if no more is hidden.
    tokens: np.ndarray  # int32 `(texts, MOST_HIDDEN)`, -100 there.


class KeptStates:
    """States of varied drawings, their captions and questions.

    Attributes:
        images: float16 `(drawings * VARIED, layers, tokens, width)`, of each
            drawing unchanged, with its own colors, and with others.
        captions: list of str, `CAPTIONS` of each emoji of training.
        emoji_of: int `(captions,)`, the number of a caption's emoji.
        read: `Texts`, the captions.
        masked: list of `Masked`, the captions with other words hidden each.
        asked: list of str, all questions.
        questions: `Texts`, those questions.
    """

    def __init__(self, task, drawings, rng):
        run, preprocessor = drawings.run, task.preprocessor
        towers = task.backbone.image_tower, task.backbone.text_tower
        self._image, self._text = (_Tower(tower) for tower in towers)
        self._tokenizer = preprocessor.tokenizer

        def shown(image):
            row, variant = divmod(image, VARIED)
            if not variant:
                return on_white(drawings.rows[row][1])
            return drawings.picture(row, rng, variant < VARIED // 2)

        convert = preprocessor.image_converter
        self.images = self._image.states(
            len(drawings.rows) * VARIED,
            lambda images: convert(np.stack([*map(shown, images)])),
        )
        numbers = sorted({number for number, _ in drawings.rows})
        self.emoji_of = np.repeat(numbers, CAPTIONS)
        self.captions = [run.caption(number, rng) for number in self.emoji_of]
        ids = self._ids(self.captions)
        self.read = self._texts(ids)
        common = np.unique(self._ids(_plain_words()))
        self.masked = [self._masked(ids, common, rng) for _ in range(MASKINGS)]

        pairs = zip(drawings.rows, drawings.colors, strict=True)
        self.asked = sorted(
            {
                text
                for (number, _), color in pairs
                for _, ways, _ in questions.facts(run.world[number], color)
                for text in ways
            }
        )
        self.questions = self._texts(self._ids(self.asked))

    def _ids(self, said):
        ids = np.asarray(self._tokenizer(said), "int32")
        return ids[:, (ids != self._tokenizer.pad_token_id).any(0)]

    def _texts(self, ids):
        mask = (ids != self._tokenizer.pad_token_id).astype("int32")
        states = self._text.states(
            len(ids),
            lambda rows: {"token_ids": ids[rows], "padding_mask": mask[rows]},
        )
        return Texts(states, mask)

    def _masked(self, ids, common, rng):
        """Hide words that describe a drawing, at least one of each text."""
        told = ~np.isin(ids, common)
        hidden, places, tokens = hide_tokens(
            ids, told, HIDDEN, MOST_HIDDEN, rng
        )
        shown = np.where(hidden, self._tokenizer.mask_token_id, ids)
        return Masked(self._texts(shown), places, tokens)


def _plain_words():
    ways = [
        way.format(x="x", a=f"{article} x.")
        for way in texts.WAYS
        for article in ("a", "an")
    ]
    ways += [join.format("x", "x") for join in texts.JOINS]
    return ways + [way.capitalize() for way in ways]


class _Tower(keras.Model):
    """A tower by itself, compiled for batches of one size."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def call(self, inputs):
        return ops.stack(self.tower(inputs), 1)

    def states(self, count, features):
        """Compute the states of `count` rows, float16."""
        found = None
        progress = keras.utils.Progbar(count, unit_name="row")
        for first in range(0, count, BATCH):
            rows = np.arange(first, min(first + BATCH, count))
            # The last batch is as long as the others, with rows that repeat.
            whole = np.resize(rows, BATCH)
            made = np.asarray(self.predict_on_batch(features(whole)))
            if found is None:
                found = np.zeros((count, *made.shape[1:]), "float16")
            found[rows] = made[: len(rows)]
            progress.add(len(rows))
        return found


# The largest share of wrong captions of the emoji that are most similar.
ALIKE, NEAREST = 0.6, 32
TRIES = 20


class WrongCaptions:
    """Draws captions that do not belong to an emoji.

    A caption is wrong if the word that it was made of is none of the emoji's.
    `emoji_of` has the number of each caption's emoji, `vectors` its vector.
    """

    def __init__(self, run, captions, emoji_of, vectors):
        self._looks, self._captions = run.splits.looks, emoji_of
        self._numbers = np.unique(emoji_of)
        self._row = {number: i for i, number in enumerate(self._numbers)}
        self._own = [np.flatnonzero(emoji_of == n) for n in self._numbers]
        places = np.stack([vectors[own].mean(0) for own in self._own])
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        self._near = np.argsort(-places @ places.T, 1)[:, 1 : NEAREST + 1]
        self._words = {n: _words(run.world[n]) for n in self._numbers}
        self._said = [
            _said(text, self._words[number])
            for text, number in zip(captions, emoji_of, strict=True)
        ]

    def draw(self, number, alike, rng):
        row = self._row[number]
        for _ in range(TRIES):
            if rng.random() < alike:
                other = self._near[row, rng.integers(len(self._near[row]))]
            else:
                other = rng.integers(len(self._numbers))
            caption = rng.choice(self._own[other])
            if self.is_wrong(caption, number):
                break
        return caption

    def is_wrong(self, caption, number):
        said = self._said[caption]
        alike = self._looks[self._captions[caption]] == self._looks[number]
        return not alike and bool(said) and said not in self._words[number]


def _words(emoji):
    short = emoji.name.partition(": ")[2]
    return {emoji.name, short or emoji.name, *emoji.keywords}


def _said(text, words):
    """Return the longest of some words in a text, or None."""
    text = text.lower()
    return max((w for w in words if w in text), key=len, default=None)
