"""Resizes a picture of any shape to a square, and crops or pads it."""

import numpy as np
from PIL import Image

from keras_bridgetower.preprocessing.resizing import RESIZERS


class UnfitPicture(ValueError):
    """A picture so long that a mode cannot make it a square."""


def squash(size, side, divisor):
    """Both sides to `side`; the aspect ratio is lost, no pixel is."""
    return (side, side), (0, 0)


def crop(size, side, divisor):
    """Shorter side to `side`, then the centre; long ends are lost."""
    short = min(size)
    resized = tuple(side if n == short else int(side * n / short) for n in size)
    return resized, tuple(int(round((n - side) / 2)) for n in resized)


def hf(size, side, divisor):
    """As `crop`, but long pictures shrink and sides are floored."""
    short = min(size)
    resized = [side if n == short else side / short * n for n in size]
    # The limit on the longer side keeps the 1333 : 800 of detection models.
    longest, limit = max(resized), int(1333 / 800 * side)
    if longest > limit:
        resized = [limit / longest * n for n in resized]
    resized = tuple(int(n + 0.5) // divisor * divisor for n in resized)
    # Negative where a side is too short: the crop then adds black around it.
    return resized, tuple((n - side) // 2 for n in resized)


# A mode is geometry alone, (width, height) -> resized size, corner of the crop.
MODES = {"squash": squash, "crop": crop, "hf": hf}


def leaves_as_is(side, mode, size_divisor=32):
    """Whether a mode leaves a square of this side as it is."""
    placed = MODES[mode]((side, side), side, size_divisor)
    return placed == ((side, side), (0, 0))


def as_square(image, converter, name="images"):
    """A picture as a square, which takes far less memory than most pictures.

    Args:
        image: RGB `PIL.Image`.
        converter: a `BridgeTowerImageConverter`, which makes the same of the
            picture and of the square.
        name: string. What errors call the picture.

    Returns:
        uint8 array `(S, S, 3)`, or the picture itself where the converter
        leaves no square as it is.

    Raises:
        UnfitPicture: as `place`.
    """
    side, mode = converter.image_size, converter.mode
    if not leaves_as_is(side, mode, converter.size_divisor):
        return image
    return np.asarray(place(image, side, mode, converter.size_divisor, name))


def check_transform(transform, converter):
    """Refuse a transform whose pictures an image converter would change.

    Args:
        transform: a `data.augment.Transform`.
        converter: a `BridgeTowerImageConverter`.

    Raises:
        ValueError: another size, a black frame, or values of another mean or
            standard deviation.
    """
    side = transform.image_size
    if side != converter.image_size or not leaves_as_is(
        side, converter.mode, converter.size_divisor
    ):
        raise ValueError(
            "`transform` must make pictures that the preprocessor's image "
            f"converter leaves as they are: {converter.image_size} px, mode "
            f"{converter.mode!r}. In mode 'hf' a side that is no multiple of "
            f"size_divisor={converter.size_divisor} shrinks into a black "
            "frame; open the task with image_mode='squash' or 'crop', as the "
            f"transform does. Received: transform.image_size={side}"
        )
    ours = transform.mean, transform.std
    theirs = converter.mean, converter.std
    if ours != theirs:
        raise ValueError(
            "`transform` and the preprocessor's image converter must have one "
            "mean and one standard deviation, or evaluation would see other "
            "values than training. Pass `mean` and `std` to "
            "`BridgeTowerImageConverter`. Received: transform with "
            f"{ours}, converter with {theirs}"
        )


def place(image, side, mode, size_divisor=32, name="images", resizer="pillow"):
    """Resize a picture by a mode, and cut the square.

    Args:
        image: RGB `PIL.Image`.
        side: int, pixels.
        mode: string, a key of `MODES`.
        size_divisor: int, as `BridgeTowerImageConverter`.
        name: string. What errors call the picture.
        resizer: string, a key of `RESIZERS`.

    Returns:
        RGB `PIL.Image` of this side.

    Raises:
        UnfitPicture: the picture is so long that resized it would not fit.
    """
    size, (left, top) = MODES[mode](image.size, side, size_divisor)
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if not 0 < size[0] * size[1] <= limit:
        raise UnfitPicture(
            f"`{name}` must not be so long and thin: the mode {mode!r} would "
            f"resize it to {size[0]} x {size[1]} pixels. Received: {name} of "
            f"{image.width} x {image.height} pixels (width x height). Cut it, "
            "or use mode='squash'."
        )
    # Pillow would copy a picture that is right already.
    if image.size != size:
        image = RESIZERS[resizer](image, size)
    if size == (side, side) and (left, top) == (0, 0):
        return image
    return image.crop((left, top, left + side, top + side))
