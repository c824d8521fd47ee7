"""The drawings that training sees, varied anew in each batch."""

import collections
import functools
import re

import numpy as np

from emoji_world import world
from emoji_world.colors import main_color
from emoji_world.training import augment

BLENDED = 0.2
_SIDED = re.compile(r"\b(left|right|facing|clockwise|o'clock|thirty)\b")


class TrainingDrawings:
    """Each emoji that is not held out, by each artist of training.

    Args:
        run: `Run`.
        mixed: float, share of drawings whose colors are mixed.
        artists: tuple of names.
    """

    def __init__(self, run, mixed=0.1, artists=world.TRAINING_ARTISTS):
        self.run, self.mixed = run, mixed
        self.rows = [
            (number, drawing)
            for number, emoji in enumerate(run.world)
            if not run.splits.held_out[number]
            for artist in artists
            if (drawing := world.drawing(emoji, artist)) is not None
        ]

        self._of_number = collections.defaultdict(list)
        for number, drawing in self.rows:
            self._of_number[number].append(drawing)

    @functools.cached_property
    def colors(self):
        """The main color of each row, or None."""
        return [main_color(drawing) for _, drawing in self.rows]

    def picture(self, row, rng, keep_colors=False):
        number, drawing = self.rows[row]
        emoji = self.run.world[number]
        if rng.random() < BLENDED:
            # A style between two artists.
            others = self._of_number[number]
            other = others[rng.integers(len(others))]
            share = rng.uniform(0.3, 0.7)
            drawing = np.rint(share * drawing + (1 - share) * other)
            drawing = drawing.astype("uint8")
        mirror = emoji.group not in augment.ONE_WAY
        mirror = mirror and not _SIDED.search(emoji.name)
        mixed = None if keep_colors else self.mixed
        return augment.vary(drawing, rng, mirror, mixed)

    def pictures(self, rows, rng):
        return np.stack([self.picture(row, rng) for row in rows])
