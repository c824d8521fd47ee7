"""The drawings that training sees, varied anew in each batch."""

import collections
import re

import numpy as np

from emoji_world import questions
from emoji_world import world
from emoji_world.colours import main_colour
from emoji_world.training import augment
from emoji_world.training.model import Batches

BLENDED = 0.2
_SIDED = re.compile(r"\b(left|right|facing|clockwise|o'clock|thirty)\b")


class TrainingDrawings:
    """Each emoji that is not held out, by each artist of training.

    Args:
        run: `Run`.
        mixed: float, share of drawings whose colours are mixed.
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

    def picture(self, row, rng, keep_colours=False):
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
        mixed = None if keep_colours else self.mixed
        return augment.vary(drawing, rng, mirror, mixed)

    def pictures(self, rows, rng):
        return np.stack([self.picture(row, rng) for row in rows])

    def captions(self, rows, rng):
        return [self.caption(row, rng) for row in rows]

    def caption(self, row, rng):
        return self.run.caption(self.rows[row][0], rng)

    def pairs(self, batch_size, seed):
        """`Batches` of pictures with captions, and which looks they show."""

        def make(rows, rng):
            x = {
                "images": self.pictures(rows, rng),
                "text": self.captions(rows, rng),
            }
            looks = [self.run.splits.looks[self.rows[row][0]] for row in rows]
            return x, np.array(looks, "int32")

        return Batches(make, len(self.rows), batch_size, seed)

    def questions(self, batch_size, seed):
        """`Batches` of pictures with questions, and answers."""
        colours = [main_colour(drawing) for _, drawing in self.rows]

        def make(rows, rng):
            asked = [
                questions.question(
                    self.run.world[self.rows[row][0]], colours[row], rng
                )
                for row in rows
            ]
            x = {
                "images": np.stack(
                    [self.picture(row, rng, keep_colours=True) for row in rows]
                ),
                "text": [text for _, text, _ in asked],
            }
            return x, [answer for _, _, answer in asked]

        return Batches(make, len(self.rows), batch_size, seed)
