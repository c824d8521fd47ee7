"""Paint cut-outs in other colors, so that a thing does not reveal its color.

Of some two hundred things only two are purple. Painted, most are seen in most
colors.
"""

import colorsys

import numpy as np
from PIL import Image

from keras_bridgetower_photos.training import words

# Hue in degrees, saturation and value: the least and the most.
PAINTS = {
    "black": ((0, 360), (0.0, 0.1), (0.06, 0.13)),
    "blue": ((205, 235), (0.55, 0.9), (0.4, 0.85)),
    "brown": ((18, 32), (0.5, 0.75), (0.3, 0.5)),
    "gray": ((0, 360), (0.0, 0.06), (0.4, 0.62)),
    "green": ((95, 145), (0.45, 0.85), (0.35, 0.7)),
    "orange": ((22, 34), (0.8, 0.98), (0.8, 0.98)),
    "pink": ((330, 350), (0.3, 0.55), (0.85, 0.98)),
    "purple": ((268, 290), (0.45, 0.8), (0.4, 0.7)),
    "red": ((352, 364), (0.75, 0.95), (0.55, 0.85)),
    "white": ((0, 360), (0.0, 0.05), (0.9, 0.97)),
    "yellow": ((48, 58), (0.65, 0.95), (0.85, 0.98)),
}
KEPT = 0.1  # Of what the picture showed before.


def painted(thing, rng):
    """Return a thing in a random color.

    People, and things whose noun contains a color (blackbird), are unchanged.
    """
    if thing.kind == "person" or _says_color(thing.noun):
        return thing
    color = str(rng.choice(list(PAINTS)))
    if not words.is_false_color(color, thing.color):
        return thing
    return thing._replace(
        color=color,
        paint=color,
        name=thing.noun if _says_color(thing.name) else thing.name,
        names=tuple(name for name in thing.names if not _says_color(name)),
    )


def _says_color(name):
    return any(color in name for color in PAINTS)


def paint(image, color, rng):
    """Return an RGBA image in a shade of a color; light and dark parts stay."""
    hue, *others = (rng.uniform(*limits) for limits in PAINTS[color])
    shade = colorsys.hsv_to_rgb(hue / 360 % 1, *others)
    pixels = np.array(image)
    light = np.asarray(image.convert("L"), "float32") + 8
    light = np.clip(light / light[pixels[..., 3] > 127].mean(), 0.3, 1.7)
    seen = (1 - KEPT) * 255 * light[..., None] * shade
    seen += KEPT * pixels[..., :3]
    pixels[..., :3] = np.clip(seen, 0, 255)
    return Image.fromarray(pixels)
