"""Any picture a user may hold, as one RGB array."""

import contextlib
import io
import os
import re

import numpy as np
from PIL import Image
from PIL import ImageOps

# Pillow would also run Ghostscript for EPS; only plain pictures are opened.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
# A path may begin with "BM" too, hence the four zero bytes BMP reserves.
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP"
    rb"|II\*\x00|MM\x00\*|BM....\x00{4}|P[1-6]\s",
    re.DOTALL,
)
EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "YCbCr", "CMYK", "HSV")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def load_image(image, name="images"):
    """Read one picture into an 8-bit RGB array.

    Transparent parts are laid over white, an EXIF rotation is carried out, of
    an animation the first frame is taken, and 16-bit values are divided by
    257, so that white stays white.

    Args:
        image: One of
            a path (`str`, `pathlib.Path`, or `bytes` that do not start like an
            image file); an encoded JPEG, PNG, GIF, WebP, BMP, TIFF or PPM
            (`bytes`); a `PIL.Image.Image`; an array `(H, W)`, `(H, W, 1)`,
            `(H, W, 3)` or `(H, W, 4)` with values from 0 to 255, integers or
            floats. A uint16 array holds values from 0 to 65535.
        name: string. What errors call the picture.

    Returns:
        A uint8 NumPy array `(H, W, 3)`.

    Raises:
        ValueError: The picture cannot be read, holds more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or is an array on another scale or
            with another order of axes. The message says how to mend it.

    Example:

    ```python
    grey = np.full((2, 5), 128, "uint8")
    load_image(grey).shape  # (2, 5, 3)
    ```

    Source: the float scale is that of the image layers of Keras.
    """
    return np.array(open_image(image, name))


def open_image(image, name="images"):
    """As `load_image`, into an RGB `PIL.Image`."""
    if isinstance(image, Image.Image):
        return _decode(image, name, f"<PIL image {image.mode} {image.size}>")
    if isinstance(image, (str, os.PathLike)):
        return _open(image, name, repr(os.fspath(image)))
    if isinstance(image, bytes):
        if SIGNATURE.match(image):
            return decode_image(image, name)
        path = image.decode("utf-8", "surrogateescape")
        return _open(path, name, f"{path[:200]!r}")
    return Image.fromarray(_from_array(image, name))


def decode_image(data, name="images"):
    """An encoded picture as an RGB `PIL.Image`; bytes are never a path.

    Args:
        data: bytes of an image file.
        name: string. What errors call the picture.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        ValueError: as `load_image`.
    """
    shown = f"<{len(data)} bytes>"
    if not SIGNATURE.match(data):
        raise ValueError(
            f"`{name}` must be an encoded image, one of {', '.join(FORMATS)}. "
            f"Received: {name}={shown}, which begin with {data[:8]!r}"
        )
    return _open(io.BytesIO(data), name, shown)


@contextlib.contextmanager
def _reading(name, shown):
    try:
        yield
    # Opening looks at the size too, and errs where warnings are errors.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise ValueError(_too_many_pixels(name, shown)) from e
    # Damaged files make Pillow raise nearly anything, struct.error included.
    except Exception as e:
        raise ValueError(
            f"`{name}` must be a readable image file, one of "
            f"{', '.join(FORMATS)}. Received: {name}={shown}, which fails "
            f"with {type(e).__name__}: {e}. Check the path, or leave the "
            "file out."
        ) from e


def _open(file, name, shown):
    with _reading(name, shown):
        image = Image.open(file, formats=FORMATS)
    with image:
        _check_size(image, name, shown)
        with _reading(name, shown):
            # In place: it is ours, and a copy costs a third of decoding.
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image, name, shown)


def _decode(image, name, shown):
    """A user's Pillow image, which stays as it is."""
    _check_size(image, name, shown)
    with _reading(name, shown):
        image = ImageOps.exif_transpose(image)
    return _to_rgb(image, name, shown)


def _check_size(image, name, shown):
    # Before any pixel is decoded: a few hundred kilobytes can hold gigabytes.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(_too_many_pixels(name, shown))
    if image.width * image.height == 0:
        raise ValueError(f"`{name}` must have pixels. Received: {name}={shown}")


def _to_rgb(image, name, shown):
    if image.mode in ALPHA_MODES or image.has_transparency_data:
        return _over_white(image)
    if image.mode == "RGB":
        return image
    if image.mode in EIGHT_BIT_MODES:
        return image.convert("RGB")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255.
        grey = _from_16_bit(np.asarray(image), name, shown)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_array(np.asarray(image), name))
    raise ValueError(
        f"`{name}` must be in a mode that converts to RGB. Received: "
        f"{name}={shown} with mode {image.mode}"
    )


def _too_many_pixels(name, shown):
    return (
        f"`{name}` must hold at most {Image.MAX_IMAGE_PIXELS} pixels. "
        f"Received: {name}={shown}. Raise `PIL.Image.MAX_IMAGE_PIXELS` if "
        "the file is trusted, or shrink the picture."
    )


def _from_array(image, name):
    try:
        array = np.asarray(image)
    # Tensors that are on a GPU or carry gradients refuse, each in its way.
    except Exception as error:
        raise ValueError(
            f"`{name}` must be convertible to a NumPy array. Received: "
            f"{name}=<{type(image).__name__}>: {error}"
        ) from error
    shown = f"array of shape {array.shape} and dtype {array.dtype}"
    if array.dtype.kind not in "uif":
        if array.ndim == 0:
            shown = f"{image!r:.200}"
        raise ValueError(
            f"`{name}` must be a path, encoded bytes, a PIL image, or an "
            f"array of integers or floats from 0 to 255. Received: "
            f"{name}={shown}"
        )
    if array.size == 0:
        raise ValueError(f"`{name}` must have pixels. Received: {name}={shown}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        mend = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            mend = ". Channels come last: use `np.transpose(image, (1, 2, 0))`"
        raise ValueError(
            f"`{name}` must have shape (H, W), (H, W, 1), (H, W, 3) or "
            f"(H, W, 4). Received: {name}={shown}{mend}"
        )
    array = _to_eight_bit(array, name, shown)
    if channels == 4:
        return np.array(_over_white(Image.fromarray(array)))
    return _rgb(array)


def _to_eight_bit(array, name, shown):
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        if 0 < array.max() <= 255:
            raise ValueError(
                f"`{name}` must use the range 0 to 65535 where its dtype is "
                f"uint16. Received: {name}={shown} with maximum "
                f"{array.max()}. Use `image.astype('uint8')` if its range "
                "is 0 to 255."
            )
        return _from_16_bit(array, name, shown)
    # NaN fails both comparisons, infinities fail one.
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"`{name}` must hold finite values from 0 to 255. Received: "
            f"{name}={shown} with values from {low} to {high}. Rescale or "
            "clip it."
        )
    if array.dtype.kind == "f":
        if 0 < high <= 1:
            raise ValueError(
                f"`{name}` must be on the scale from 0 to 255. Received: "
                f"{name}={shown} with maximum {high}, which is scaled "
                "already. Multiply it by 255."
            )
        array = np.rint(array)
    return array.astype("uint8")


def _from_16_bit(array, name, shown):
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise ValueError(
            f"`{name}` must hold 16-bit values from 0 to 65535. Received: "
            f"{name}={shown} with values from {low} to {high}"
        )
    return np.rint(array / 257.0).astype("uint8")


def _over_white(image):
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _rgb(grey_or_rgb):
    if grey_or_rgb.ndim == 2:
        grey_or_rgb = grey_or_rgb[..., None]
    return np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3))
