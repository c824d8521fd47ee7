"""The space that both towers learn: MiniLM's, in fewer numbers."""

import functools

import numpy as np

from emoji_world import english
from emoji_world import texts
from emoji_world.training.model import SPACE
from emoji_world.training.teacher import fewer_numbers

CAPTIONS_OF_EACH = 16


class Space:
    """Captions and WordNet's sentences, with their places in the space.

    Args:
        run: `Run`.

    Attributes:
        captions: dict from the number of an emoji that is not held out to a
            list of captions.
        texts: list of all captions and sentences.
    """

    def __init__(self, run):
        self._kept = run.teacher
        rng = np.random.default_rng(run.seed)
        self.captions = {
            number: [
                texts.caption(emoji, run.colors[number], run.splits, rng)
                for _ in range(CAPTIONS_OF_EACH)
            ]
            for number, emoji in enumerate(run.world)
            if not run.splits.held_out[number]
        }
        self.texts = [
            *sorted({text for made in self.captions.values() for text in made}),
            *english.sentences(run.packages["wordnet"]),
        ]

    def of(self, texts):
        """Where texts lie: float32 `(texts, SPACE)`, of length 1."""
        return self._fewer(self._kept.of(texts))

    @functools.cached_property
    def _fewer(self):
        return fewer_numbers(self._kept.of(self.texts), SPACE)
