"""Count the main color of a drawing from its pixels."""

import colorsys

import numpy as np

# Upper ends of hues in degrees.
HUES = (
    (15, "red"),
    (36, "orange"),
    (68, "yellow"),
    (165, "green"),
    (260, "blue"),
    (300, "purple"),
    (340, "pink"),
    (361, "red"),
)
COLORS = (
    *dict.fromkeys(name for _, name in HUES),
    "brown",
    "black",
    "gray",
    "white",
)


def main_color(drawing):
    """Return the most frequent color, or None if it has below 40 %."""
    seen = drawing[drawing[..., 3] > 127][:, :3] / 255.0
    names = [_name(*pixel) for pixel in seen[::3]]
    if not names:
        return None
    values, counts = np.unique(names, return_counts=True)
    best = counts.argmax()
    return str(values[best]) if counts[best] >= 0.4 * len(names) else None


def _name(red, green, blue):
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.22:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "gray"
    degrees = 360 * hue
    if 10 < degrees < 45 and value < 0.65:
        return "brown"
    return next(name for end, name in HUES if degrees < end)
