"""Resizes a picture of any shape to a square, and crops or pads it."""

import numpy as np
from PIL import Image


class UnfitPicture(ValueError):
    """A picture so long that a mode cannot make it a square."""


def squash(size, side, divisor):
    """Both sides to `side`; the aspect ratio is lost, no pixel is."""
    return (side, side), (0, 0)


def crop(size, side, divisor):
    """Shorter side to `side`, then the center; long ends are lost."""
    short = min(size)
    resized = tuple(side if n == short else int(side * n / short) for n in size)
    return resized, tuple(int(round((n - side) / 2)) for n in resized)


def hf(size, side, divisor):
    """Crop like transformers: long pictures shrink and sides are floored."""
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
    """Return True if a mode leaves a square of this side unchanged."""
    placed = MODES[mode]((side, side), side, size_divisor)
    return placed == ((side, side), (0, 0))


def as_square(image, converter, name="images"):
    """Resize a picture to a square, which takes far less memory.

    Args:
        image: RGB `PIL.Image`.
        converter: a `BridgeTowerImageConverter`, which makes the same of the
            picture and of the square.
        name: str, the picture's name in errors.

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
    """Reject a transform whose pictures an image converter would change.

    Args:
        transform: a `data.augment.Transform`.
        converter: a `BridgeTowerImageConverter`.

    Raises:
        ValueError: another size, a black frame, or values of another mean or
            standard deviation.
    """
    ours, theirs = (
        (made.image_size, made.mean, made.std)
        for made in (transform, converter)
    )
    mode, divisor = converter.mode, converter.size_divisor
    if ours != theirs or not leaves_as_is(ours[0], mode, divisor):
        raise ValueError(
            "`transform` must make pictures that the preprocessor's image "
            "converter leaves as they are: both need one size, one mean and "
            "one standard deviation, and image_mode='squash' or 'crop'. "
            f"Received: image_size={ours[0]}, {ours[1:]}, and a converter with "
            f"{theirs}, {mode!r}"
        )


def place(image, side, mode, size_divisor=32, name="images", resizer="pillow"):
    """Resize a picture by a mode, and cut the square.

    Args:
        image: RGB `PIL.Image`.
        side: int, pixels.
        mode: string, a key of `MODES`.
        size_divisor: int, as `BridgeTowerImageConverter`.
        name: str, the picture's name in errors.
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
            f"`{name}` must not be so long and thin. Cut it, or use "
            f"mode='squash'. Received: {image.size} pixels, mode={mode!r}"
        )
    # Pillow would copy a picture that is right already.
    if image.size != size:
        image = RESIZERS[resizer](image, size)
    if size == (side, side) and (left, top) == (0, 0):
        return image
    return image.crop((left, top, left + side, top + side))


def by_pillow(image, size):
    """Resize an RGB `PIL.Image` to `(width, height)`."""
    return image.resize(size, Image.Resampling.BICUBIC)


def by_torch(image, size):
    """Resize by vector instructions, in integer arithmetic.

    Its weights have 16 bits and Pillow's 32: about one value in a thousand
    differs, by one level for each of the two directions at most.
    """
    import torch

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, size[::-1], mode="bicubic", antialias=True
    )
    planes = resized[0].numpy()
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


RESIZERS = {"pillow": by_pillow, "torch": by_torch}
