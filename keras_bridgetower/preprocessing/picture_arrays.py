"""Converts arrays of pixels, on any scale, to 8-bit RGB."""

import warnings

import numpy as np
from PIL import Image

# White in integers of 12 bits, which are often kept in 16.
WHITE_OF_12_BITS = 4095
# Parts in which a picture is converted: what is needed for one is small.
STRIPS = 64


def from_array(image, name, file=None):
    """Convert an array-like of pixels to a uint8 array `(H, W, 3)`.

    Args:
        image: array-like.
        name: str, the picture's name in errors.
        file: string, what errors show of its file, or None for an array.
    """
    array = np.asarray(image)
    shown = f"array of shape {array.shape} and dtype {array.dtype}"
    shown = f"{file}, {shown}" if file else shown
    channels = array.shape[2] if array.ndim == 3 else 1
    right = array.dtype.kind in "uif" and array.ndim in (2, 3)
    if not right or channels not in (1, 3, 4):
        raise ValueError(
            f"`{name}` must be a path, encoded bytes, a PIL image, or an array "
            f"(H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Received: {shown}"
        )
    check_size(array.shape[1::-1], name, shown)
    array = _to_eight_bit(array, name, shown)
    if channels == 4:
        return np.array(by_strips(Image.fromarray(array), over_white))
    array = array.reshape(*array.shape[:2], channels)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def check_size(size, name, shown):
    """Reject a picture without pixels, or with more than Pillow allows.

    Args:
        size: pair of ints, width and height.
        name, shown: strings, what errors call the picture and show of it.
    """
    # Before any pixel is decoded or copied: a few hundred kilobytes can hold
    # gigabytes, and a broadcast array any number of pixels in one byte.
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if not 0 < size[0] * size[1] <= limit:
        raise ValueError(of_wrong_size(name, shown))


def of_wrong_size(name, shown):
    return (
        f"`{name}` must hold at least 1 and at most {Image.MAX_IMAGE_PIXELS} "
        f"pixels. Received: {name}={shown}"
    )


def check_16_bit(low, high, name, shown, scale_known=False):
    """Reject values that are not from 0 to 65535, warn of dark pictures.

    Args:
        low, high: ints, the extreme values.
        name, shown: strings, as `check_size`.
        scale_known: bool, whether 65535 is known to be white. Otherwise an
            array without a value above 4095 is refused: nearly always it
            holds integers of 8, 10 or 12 bits.
    """
    dark = 0 < high <= WHITE_OF_12_BITS
    message = f"`{name}` must use the range 0 to 65535 in uint16 or mode I."
    if low < 0 or high > 65535 or (dark and not scale_known):
        raise ValueError(f"{message} Received: {shown}, {low} to {high}")
    if dark:
        warnings.warn(f"{message} It has at most {high}.", stacklevel=2)


def from_16_bit(image):
    """Convert a `PIL.Image` of mode `I` or `I;16` to RGB."""
    return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")


def _scaled(array):
    return np.rint(array / 257.0).astype("uint8")


def warn_of_mask(array, name):
    """Warn if a picture has no value but 0 and 1, and is not all black.

    Args:
        array: uint8 array of pixels.
        name: string. What the warning calls the picture.
    """
    if array.max() == 1:
        warnings.warn(
            f"`{name}` is nearly black: multiply a mask of 0 and 1 by 255.",
            stacklevel=2,
        )


def by_strips(image, convert):
    """Convert a `PIL.Image` few rows at a time, which takes less memory.

    Args:
        image: `PIL.Image.Image`.
        convert: callable from one to an RGB image of the same size.
    """
    made = Image.new("RGB", image.size)
    rows = image.height // STRIPS + 1
    for top in range(0, image.height, rows):
        stop = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, stop))
        made.paste(convert(strip), (0, top))
    return made


def over_white(image):
    """Convert a `PIL.Image` with transparency to RGB over white."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _to_eight_bit(array, name, shown):
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        check_16_bit(int(array.min()), int(array.max()), name, shown)
        strips = np.array_split(array, STRIPS)
        return np.concatenate([_scaled(strip) for strip in strips])
    # NaN fails both comparisons, infinities fail one.
    low, high = array.min(), array.max()
    # Floats from 0 to 1 exceed 1 after resizing or augmentation.
    least = 2 if array.dtype.kind == "f" else 1
    if not (low >= 0 and high <= 255) or 0 < high <= least:
        raise ValueError(
            f"`{name}` must be finite and on the scale from 0 to 255. "
            f"Received: {shown} with values from {low} to {high}"
        )
    made = np.empty(array.shape, "uint8")
    # Without a copy of all values as floats.
    return np.rint(array, out=made, casting="unsafe")
