"""Lays a map of weights over the picture that it belongs to."""

import numpy as np
from PIL import Image

SIDE = 384
_COLOUR = np.array((255, 106, 0), "float32")
_STRONGEST = 0.78


def overlay(picture, weights, side=SIDE):
    """A picture in grey, with its weights over it in orange.

    Args:
        picture: float array `(S, S, 3)` in 0..1.
        weights: float array `(rows, columns)`, not negative.
        side: int, pixels of the result.

    Returns:
        `PIL.Image.Image` `(side, side)` of mode RGB.
    """
    size = (side, side)
    shown = Image.fromarray(np.uint8(np.round(picture * 255)))
    shown = shown.convert("L").resize(size, Image.Resampling.BICUBIC)
    grey = 0.55 * np.asarray(shown, "float32")[..., None] + 0.45 * 255
    strength = Image.fromarray(strengths(weights).astype("float32"))
    strength = np.asarray(strength.resize(size, Image.Resampling.BILINEAR))
    share = _STRONGEST * strength[..., None]
    mixed = grey * (1 - share) + _COLOUR * share
    return Image.fromarray(np.uint8(np.round(mixed)))


def strengths(weights):
    """How far weights stand out, from 0 for the median to 1 for the largest.

    Most patches show background and get the same small share, which would
    colour the whole picture.
    """
    weights = np.asarray(weights, "float64")
    typical, largest = np.median(weights), weights.max()
    if largest - typical <= 1e-9 * max(largest, 1e-30):
        return np.zeros_like(weights)
    return np.clip((weights - typical) / (largest - typical), 0, 1)
