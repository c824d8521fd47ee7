"""Drawings moved, turned, recolored and laid on papers of any color."""

import numpy as np
from PIL import Image
from PIL import ImageEnhance

from emoji_world.world import SIDE

# Mirrored, these would mean something else.
ONE_WAY = ("symbols", "flags")


def vary(drawing, rng, mirror, mixed=None):
    """A drawing as it may be met.

    Args:
        drawing: uint8 `(64, 64, 4)`.
        rng: `numpy.random.Generator`.
        mirror: bool, whether it may be mirrored.
        mixed: share of drawings whose colors are mixed with each other, or
            None to keep colors as they are.

    Returns:
        uint8 `(64, 64, 3)`.
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
    """A small turn, stretch and shift, as Pillow's six numbers."""
    angle = rng.normal(0.0, 0.12)
    scale = np.exp(rng.uniform(-0.15, 0.3)) * np.exp(
        rng.normal(0.0, 0.05, (2, 1))
    )
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    matrix = scale * turn
    centre = np.full(2, SIDE / 2)
    room = max(1.0, SIDE * (scale.mean() - 1.0) / 2)
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
        image = image.resize((SIDE, SIDE), Image.BILINEAR)
    if rng.random() < mixed:
        # The color does not make the thing.
        channels = np.asarray(image, "float32")
        matrix = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        mixed = np.clip(channels @ matrix, 0, 255).astype("uint8")
        image = Image.fromarray(mixed)
    return image
