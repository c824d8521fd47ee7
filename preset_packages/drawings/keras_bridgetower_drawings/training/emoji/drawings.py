"""Draw the training pictures, varied anew in each batch."""

import collections
import functools
import re

import numpy as np
from PIL import Image
from PIL import ImageEnhance

from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.colors import main_color

# Mirrored, these would mean something else.
ONE_WAY = ("symbols", "flags")


def vary(drawing, rng, mirror, mixed=None):
    """Vary position, paper and, unless `mixed` is None, colors of a drawing.

    Channels are mixed in a share `mixed` of the drawings.
    """
    image = Image.fromarray(drawing)
    if mirror and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.8:
        image = image.transform(
            image.size, Image.Transform.AFFINE, _placed(rng), Image.BILINEAR
        )
    paper = Image.new("RGBA", image.size, _paper(rng))
    paper.alpha_composite(image)
    image = paper.convert("RGB")
    return np.asarray(image if mixed is None else _recolored(image, rng, mixed))


def _placed(rng):
    angle = rng.normal(0.0, 0.12)
    scale = np.exp(rng.uniform(-0.15, 0.3)) * np.exp(
        rng.normal(0.0, 0.05, (2, 1))
    )
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    matrix = scale * turn
    centre = np.full(2, world.SIDE / 2)
    room = max(1.0, world.SIDE * (scale.mean() - 1.0) / 2)
    shift = centre - matrix @ (centre + rng.uniform(-room, room, 2))
    (a, b), (d, e) = matrix.tolist()
    return a, b, float(shift[0]), d, e, float(shift[1])


def _paper(rng):
    draw = rng.random()
    if draw < 0.5:
        color = (255, 255, 255)
    elif draw < 0.75:
        color = rng.integers(200, 256, 3)
    else:
        color = rng.integers(0, 256, 3)
    return (*map(int, color), 255)


def _recolored(image, rng, mixed):
    for kind, spread in (
        (ImageEnhance.Brightness, 0.15),
        (ImageEnhance.Contrast, 0.2),
        (ImageEnhance.Color, 0.3),
    ):
        if rng.random() < 0.5:
            image = kind(image).enhance(float(np.exp(rng.normal(0, spread))))
    if rng.random() < 0.2:
        # Flat colors, as other artists use them.
        image = image.quantize(int(rng.integers(4, 16))).convert("RGB")
    if rng.random() < 0.15:
        size = int(rng.integers(28, 56))
        image = image.resize((size, size), Image.BILINEAR)
        image = image.resize((world.SIDE, world.SIDE), Image.BILINEAR)
    if rng.random() < mixed:
        # A thing keeps its name in any color.
        channels = np.asarray(image, "float32")
        matrix = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        mixed = np.clip(channels @ matrix, 0, 255).astype("uint8")
        image = Image.fromarray(mixed)
    return image


BLENDED = 0.2
_SIDED = re.compile(r"\b(left|right|facing|clockwise|o'clock|thirty)\b")


class TrainingDrawings:
    """Drawings of all training emoji by all training artists.

    `mixed` is the share of drawings whose colors are mixed.
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
        mirror = emoji.group not in ONE_WAY
        mirror = mirror and not _SIDED.search(emoji.name)
        mixed = None if keep_colors else self.mixed
        return vary(drawing, rng, mirror, mixed)

    def pictures(self, rows, rng):
        return np.stack([self.picture(row, rng) for row in rows])
