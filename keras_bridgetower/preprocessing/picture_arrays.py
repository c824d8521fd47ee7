"""Converts arrays of pixels, on any scale, to 8-bit RGB."""

import warnings

import numpy as np
from PIL import Image

# Pixels that are converted at once: what a conversion needs beside a picture
# and its result stays below 64 MB.
STRIP = 2**20
# White in integers of 8, 10 and 12 bits, which are often kept in 16.
WHITES = (255, 1023, 4095)


def from_array(image, name, file=None):
    """Convert an array-like of pixels to a uint8 array `(H, W, 3)`.

    Args:
        image: array-like.
        name: str, the picture's name in errors.
        file: string, what errors show of its file, or None for an array.
    """
    array = as_array(image, name)
    shown = f"array of shape {array.shape} and dtype {array.dtype}"
    shown = f"{file}, {shown}" if file else shown
    if array.dtype.kind not in "uif":
        if array.ndim == 0:
            shown = f"{image!r:.200}"
        raise ValueError(
            f"`{name}` must be a path, encoded bytes, a PIL image, or an "
            f"array of integers or floats. Received: {name}={shown}"
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        fix = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            fix = ". Channels come last: use `np.transpose(image, (1, 2, 0))`"
        raise ValueError(
            f"`{name}` must have shape (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4). Received: {name}={shown}{fix}"
        )
    check_size(array.shape[1::-1], name, shown)
    array = _to_eight_bit(array, name, shown)
    if channels == 4:
        return np.array(over_white(Image.fromarray(array)))
    return _rgb(array)


def as_array(image, name):
    """Call `np.asarray`, with errors that name the picture."""
    try:
        return np.asarray(image)
    except KeyboardInterrupt:
        raise
    # `__array__` may raise anything, SystemExit included.
    except BaseException as error:
        raise ValueError(
            f"`{name}` must be convertible to a NumPy array. Received: "
            f"{name}=<{type(image).__name__}>: {error}"
        ) from error


def check_size(size, name, shown):
    """Reject a picture without pixels, or with more than Pillow allows.

    Args:
        size: pair of ints, width and height.
        name, shown: strings, what errors call the picture and show of it.
    """
    # Before any pixel is decoded or copied: a few hundred kilobytes can hold
    # gigabytes, and a broadcast array any number of pixels in one byte.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise ValueError(too_many_pixels(name, shown))
    if size[0] * size[1] == 0:
        raise ValueError(f"`{name}` must have pixels. Received: {name}={shown}")


def too_many_pixels(name, shown):
    return (
        f"`{name}` must hold at most {Image.MAX_IMAGE_PIXELS} pixels. Shrink "
        f"it, or raise `PIL.Image.MAX_IMAGE_PIXELS`. Received: {name}={shown}"
    )


def from_16_bit(array, name, shown, scale_known=False):
    """Convert values from 0 to 65535 to uint8.

    Args:
        array: integers.
        name, shown: strings, as `check_size`.
        scale_known: bool, whether 65535 is known to be white. Otherwise an
            array without a value above 4095 is refused: nearly always it
            holds integers of 8, 10 or 12 bits.
    """
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"`{name}` must hold 16-bit values from 0 to 65535. Received: "
            f"{name}={shown} with values from {low} to {high}"
        )
    if 0 < high <= WHITES[-1]:
        white = next(white for white in WHITES if high <= white)
        scaled = "image" if white == 255 else f"(image / {white} * 255)"
        message = (
            f"`{name}` must use the range 0 to 65535 in uint16 or mode I. Use "
            f"`{scaled}.astype('uint8')` if white is {white}, or "
            f"`(image // 257).astype('uint8')` if it is dark. Received: {name}"
        )
        if not scale_known:
            raise ValueError(f"{message}={shown} with maximum {high}")
        # Not of one file: equal warnings are shown once.
        warnings.warn(f"{message} with values up to {white}", stacklevel=2)
    return _by_strips(lambda values: np.rint(values / 257.0), array)


def warn_of_mask(array, name):
    """Warn if a picture has no value but 0 and 1, and is not all black.

    Args:
        array: uint8 array of pixels.
        name: string. What the warning calls the picture.
    """
    if array.max() == 1:
        warnings.warn(
            f"`{name}` is nearly black: its largest value is 1, and white is "
            "255. Multiply a mask of 0 and 1 by 255.",
            stacklevel=2,
        )


def over_white(image):
    """Convert a `PIL.Image` with transparency to RGB over white."""
    made = Image.new("RGB", image.size)
    for top, stop in _strips(image.height, image.width):
        box = (0, top, image.width, stop)
        part = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", part.size, "white")
        made.paste(Image.alpha_composite(white, part).convert("RGB"), box)
    return made


def _to_eight_bit(array, name, shown):
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return from_16_bit(array, name, shown)
    # NaN fails both comparisons, infinities fail one.
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"`{name}` must hold finite values from 0 to 255. Received: "
            f"{name}={shown} with values from {low} to {high}"
        )
    # Floats from 0 to 1 exceed 1 after resizing or augmentation.
    floats = array.dtype.kind == "f"
    if 0 < high <= (2 if floats else 1):
        raise ValueError(
            f"`{name}` must be on the scale from 0 to 255. Use "
            f"`np.clip(image, 0, 1) * 255`. Received: {name}={shown} with "
            f"maximum {high}"
        )
    return _by_strips(np.rint, array) if floats else array.astype("uint8")


def _by_strips(function, array):
    """Apply a function to pixels, strip by strip, and return uint8."""
    made = np.empty(array.shape, "uint8")
    for top, stop in _strips(len(array), array[0].size):
        made[top:stop] = function(array[top:stop])
    return made


def _strips(height, width):
    rows = max(1, STRIP // width)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _rgb(grey_or_rgb):
    if grey_or_rgb.ndim == 2:
        grey_or_rgb = grey_or_rgb[..., None]
    return np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3))
