"""The drawings that training sees, varied anew in each batch."""

import re

import numpy as np

from emoji_world import questions
from emoji_world import texts
from emoji_world import world
from emoji_world.colours import main_colour
from emoji_world.training import augment
from emoji_world.training.model import Batches

_SIDED = re.compile(r"\b(left|right|facing|clockwise|o'clock|thirty)\b")


class TrainingDrawings:
    """Each emoji that is not held out, by each artist of training.

    Args:
        run: `Run`.
        artists: tuple of names.
    """

    def __init__(self, run, artists=world.TRAINING_ARTISTS):
        self.run = run
        self.rows = [
            (number, drawing)
            for number, emoji in enumerate(run.world)
            if not run.splits.held_out[number]
            for artist in artists
            if (drawing := world.drawing(emoji, artist)) is not None
        ]

    def picture(self, row, rng, recolour=True):
        number, drawing = self.rows[row]
        emoji = self.run.world[number]
        mirror = emoji.group not in augment.ONE_WAY
        mirror = mirror and not _SIDED.search(emoji.name)
        return augment.vary(drawing, rng, mirror, recolour)

    def pictures(self, rows, rng):
        return np.stack([self.picture(row, rng) for row in rows])

    def captions(self, rows, rng):
        return [self.caption(row, rng) for row in rows]

    def caption(self, row, rng):
        number, _ = self.rows[row]
        run = self.run
        return texts.caption(
            run.world[number], run.colours[number], run.splits, rng
        )

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
                    [self.picture(row, rng, recolour=False) for row in rows]
                ),
                "text": [text for _, text, _ in asked],
            }
            return x, [answer for _, _, answer in asked]

        return Batches(make, len(self.rows), batch_size, seed)
