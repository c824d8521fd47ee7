"""Resizes, crops or pads a picture of any shape to a square."""

import math
import typing

import numpy as np
from PIL import Image

# Filters that every version of Pillow has, by name.
RESAMPLES = {
    name: Image.Resampling[name.upper()]
    for name in ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")
}


class UnfitPicture(ValueError):
    """A picture so long that a mode cannot make it a square."""


class Square(typing.NamedTuple):
    """The values of an image converter that turn a picture into a square."""

    image_size: int
    mode: str = "squash"
    size_divisor: int = 32
    crop_pct: float = 1.0
    resample: str = "bicubic"

    def added_values(self):
        """Return a dict of `crop_pct` and `resample`, without defaults."""
        return {
            name: getattr(self, name)
            for name in ("crop_pct", "resample")
            if getattr(self, name) != self._field_defaults[name]
        }


def squash(size, side, divisor):
    """Resize both sides to `side`, without keeping the aspect ratio."""
    return side, side


def crop(size, side, divisor):
    """Resize the shorter side to `side`; the ends of the longer are cut off."""
    short = min(size)
    return tuple(side if n == short else int(side * n / short) for n in size)


def hf(size, side, divisor):
    """Crop like transformers: long pictures shrink and sides are floored."""
    short = min(size)
    resized = [side if n == short else side / short * n for n in size]
    # The limit on the longer side is from detection models, 1333 : 800.
    longest, limit = max(resized), int(1333 / 800 * side)
    if longest > limit:
        resized = [limit / longest * n for n in resized]
    return tuple(int(n + 0.5) // divisor * divisor for n in resized)


# Functions from (width, height) to the resized size.
MODES = {"squash": squash, "crop": crop, "center": crop, "hf": hf}


def _resized(size, square):
    """Return the size to which a picture is resized, and the crop's corner."""
    side = square.image_size
    # 224 / (224 / 250) could be a little less than 250.
    larger = int(side / square.crop_pct + 1e-6)
    resized = MODES[square.mode](size, larger, square.size_divisor)
    # torchvision rounds the corner, transformers floors it. If a side is too
    # short, it is negative, and the crop adds black.
    whole = round if square.mode == "crop" else math.floor
    return resized, tuple(whole((n - side) / 2) for n in resized)


def leaves_as_is(square):
    """Return True if a square of the right side remains unchanged."""
    size = (square.image_size, square.image_size)
    return _resized(size, square) == (size, (0, 0))


def as_square(image, square, name="images"):
    """Resize a picture to a uint8 array `(S, S, 3)`, to save memory.

    The converter computes the same from both. The picture is returned unchanged
    if the converter would change a square.

    Args:
        image: RGB `PIL.Image`.
        square: `Square` of an image converter.
        name: str, the picture's name in errors.
    """
    if not leaves_as_is(square):
        return image
    return np.asarray(place(image, square, name))


def check_transform(transform, converter):
    """Reject a transform whose pictures an image converter would change.

    Args:
        transform: a `data.augment.Transform`.
        converter: a `BridgeTowerImageConverter`.
    """
    ours, theirs = (
        (made.image_size, made.mean, made.std)
        for made in (transform, converter)
    )
    if ours != theirs or not leaves_as_is(converter.square):
        raise ValueError(
            "`transform` must make pictures that the preprocessor's image "
            "converter does not change: both need one size, one mean and one "
            "standard deviation, and the converter image_mode='squash' or "
            "'crop', and crop_pct=1. "
            f"Received: image_size={ours[0]}, {ours[1:]}, and a converter with "
            f"{theirs}, {converter.mode!r}, crop_pct={converter.crop_pct}"
        )


def place(image, square, name="images", resizer="pillow"):
    """Resize a picture by a mode, and cut the square.

    Args:
        image: RGB `PIL.Image`.
        square: `Square`.
        name: str, the picture's name in errors.
        resizer: str, a key of `RESIZERS`.

    Returns:
        RGB `PIL.Image` of this side.

    Raises:
        UnfitPicture: the picture is too long for the mode.
    """
    side = square.image_size
    size, (left, top) = _resized(image.size, square)
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if not 0 < size[0] * size[1] <= limit:
        raise UnfitPicture(
            f"`{name}` must not be too long and thin. Crop it, or use "
            "mode='squash'. "
            f"Received: {image.size} pixels, mode={square.mode!r}"
        )
    # Pillow would copy a picture of the right size.
    if image.size != size:
        image = RESIZERS[resizer](image, size, square.resample)
    if size == (side, side) and (left, top) == (0, 0):
        return image
    return image.crop((left, top, left + side, top + side))


def by_pillow(image, size, resample="bicubic"):
    """Resize an RGB `PIL.Image` to `(width, height)`."""
    return image.resize(size, RESAMPLES[resample])


def by_torch(image, size, resample="bicubic"):
    """Resize by vector instructions, in integer arithmetic.

    Weights have 16 bits, Pillow's 32: about one value in a thousand differs, by
    at most one level for each of the two directions.
    """
    import torch

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size[::-1], mode=resample, antialias=True
    )
    planes = resized[0].numpy()
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


RESIZERS = {"pillow": by_pillow, "torch": by_torch}
