"""Reads any kind of picture as one RGB array."""

import base64
import contextlib
import io
import os
import re
import warnings

import numpy as np
from PIL import Image
from PIL import ImageOps

from keras_bridgetower.files import open_regular

# Mean and standard deviation of the color channels of CLIP's training
# pictures, for values from 0 to 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# Pillow would also run Ghostscript for EPS; only plain pictures are opened.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
# A text may also begin with "BM", so four zero bytes that BMP reserves are
# checked.
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP"
    rb"|II\*\x00|MM\x00\*|BM....\x00{4}|P[1-6]\s",
    re.DOTALL,
)
# Types of one picture.
SINGLE = (str, bytes, bytearray, memoryview, os.PathLike, io.IOBase)
SINGLE += (Image.Image,)
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# Formats in whose mode I 65535 is white.
SCALED_FORMATS = ("PNG", "PPM")
# Bytes of EXIF that are read for a rotation: a segment of JPEG has no more, and
# Pillow needs minutes for far longer ones.
EXIF_BYTES = 65536
EXIF_KEYS = ("exif", "Raw profile type exif")
# Scans of a JPEG. Encoders write about 10. Each takes a pass over all pixels,
# and may have only 20 bytes. Pillow has no limit; this one is libtiff's.
SCANS = 100
# Bytes of a JPEG that are searched for scans. Longer files may take longer.
_SEARCHED = 2**28
_BLOCK = 2**16
# A marker, not a byte 0xFF of the data (0 follows), a restart, or padding.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_END, _SCAN = b"\xd9", b"\xda"
# Of a URL, also where `pathlib` took one of its slashes.
_ADDRESS = re.compile(r"'[A-Za-z][\w+.-]+:/")
# White in integers of 12 bits, which are often kept in 16.
_WHITE_OF_12_BITS = 4095
# Parts in which a picture is converted, to use little memory.
_STRIPS = 64


def load_image(image, name="images"):
    """Read one picture into an 8-bit RGB array.

    Transparent parts become white, an EXIF rotation is applied, the first frame
    of an animation is read, and 16-bit values are divided by 257, so that white
    remains white. The format is recognized by the content of a file, not by
    its name, and only plain files are opened. Decoding takes up to 10 bytes a
    pixel: 0.9 GB at Pillow's own limit.

    Args:
        image: one of
            a path (`str` or `os.PathLike`); an encoded JPEG, PNG, GIF, WebP,
            BMP, TIFF or PPM (`bytes`, which are never a path); the same as an
            open binary file or `io.BytesIO`, read from its start; a
            `PIL.Image.Image`; an array `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or
            `(H, W, 4)` with values from 0 to 255, integers or floats. A
            uint16 array or an image of mode `I` has values from 0 to 65535,
            some of them above 4095.
        name: str, the picture's name in errors.

    Returns:
        A uint8 NumPy array `(H, W, 3)`.

    Raises:
        ValueError: the picture cannot be read, has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, is a JPEG with more than 100 scans,
            or is an array on another scale, such as floats up to 1 and masks
            of 0 and 1, or with another order of axes. The message says how to
            fix it.

    Example:

    ```python
    grey = np.full((2, 5), 128, "uint8")
    load_image(grey).shape  # (2, 5, 3)
    ```

    Source: the float scale is that of the image layers of Keras.
    """
    return np.array(open_image(image, name))


def open_image(image, name="images"):
    """Read one picture into an RGB `PIL.Image`, as `load_image`."""
    if isinstance(image, Image.Image):
        return _decode(image, name, f"<PIL image {image.mode} {image.size}>")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), name)
    if isinstance(image, (str, os.PathLike)):
        shown = f"{os.fspath(image)!r:.300}"
        with _reading(name, shown):
            file = open_regular(os.fspath(image))
        with file:
            return _open(file, name, shown)
    if isinstance(image, io.IOBase):
        # The user's file stays open.
        shown = f"<{type(image).__name__}>"
        with _reading(name, shown):
            image.seek(0)
        return _open(image, name, shown)
    return Image.fromarray(_from_array(image, name))


def decode_image(data, name="images"):
    """Decode the bytes of an image file to an RGB `PIL.Image`.

    Raises:
        ValueError: as `load_image`.
    """
    return _open(io.BytesIO(data), name, f"<{len(data)} bytes>")


def open_file(file, path, name="images"):
    """Read a picture from an open file, as `open_image` from its path.

    Args:
        file: binary file at its start: that of the path, or a copy of it.
        path: str or `os.PathLike`, for errors.
        name: str, the picture's name in errors.
    """
    return _open(file, name, repr(os.fspath(path)))


def check_head(file, name="images"):
    """Reject an image file as `open_image` does, without reading its pixels.

    Args:
        file: binary file, open for reading.
        name: str, the picture's name in errors.

    Returns:
        Pair of ints, width and height.

    Raises:
        ValueError: a wrong number of pixels, or a progressive JPEG with too
            many scans. Damaged files make Pillow raise nearly any error.
    """
    with Image.open(file, formats=FORMATS) as image:
        shown = f"{image.format} of {image.width} x {image.height}"
        _check_size(image.size, name, shown)
        # Other JPEGs are searched when they are decoded and read completely.
        if image.info.get("progressive"):
            _check_scans(file, name, shown)
        return image.size


def _check_scans(file, name, shown):
    if _scans(file) > SCANS:
        raise ValueError(
            f"`{name}` must be a JPEG of at most {SCANS} scans. "
            f"Received: {name}={shown}"
        )


def _scans(file):
    """Count the scans of a JPEG, up to the first that is too many.

    Segments, which may hold a thumbnail, and bytes after the end of the picture
    are skipped.
    """
    before = file.tell()
    start, block, place, found = 0, b"", 2, 0
    while found <= SCANS and start + place < _SEARCHED:
        # A marker and the length behind it are 4 bytes.
        if place + 4 > len(block):
            start, place = start + place, 0
            file.seek(start)
            block = file.read(_BLOCK)
        marker = _MARKER.search(block, place)
        if marker is None:
            if len(block) < _BLOCK:
                break
            # The last byte may begin a marker.
            place = len(block) - 1
            continue
        place = marker.start()
        if marker[1] == _END:
            break
        length = block[place + 2 : place + 4]
        if len(length) < 2 and len(block) == _BLOCK:
            continue
        found += marker[1] == _SCAN
        place += 2 + max(2, int.from_bytes(length, "big"))
    file.seek(before)
    return found


def check_signature(data, name):
    """Reject bytes that do not begin as an image file of `FORMATS`."""
    if not SIGNATURE.match(data):
        raise ValueError(
            f"`{name}` must be an encoded image; bytes are never a path. "
            f"Received: {len(data)} bytes that begin with {data[:8]!r}"
        )


def is_base64(start):
    """Return True if bytes are the start of an image in base64."""
    start = b"".join(start.split())
    try:
        data = _from_base64(start[: len(start) // 4 * 4])
    except ValueError:
        return False
    return SIGNATURE.match(data) is not None


@contextlib.contextmanager
def _reading(name, shown):
    try:
        yield
    # Opening checks the size too, and may turn its warning into an error.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise _size_error(name, shown) from e
    except FileNotFoundError as error:
        address = _ADDRESS.match(shown) and "here: addresses are not opened"
        raise ValueError(
            f"`{name}` must be a file {address or 'that exists'}. "
            f"Received: {name}={shown}"
        ) from error
    # Damaged files make Pillow raise nearly any error.
    except Exception as error:
        raise ValueError(
            f"`{name}` must be a readable image file, one of {FORMATS}. "
            f"Received: {name}={shown}: {type(error).__name__}: {error!s:.500}"
        ) from error


def _open(file, name, shown):
    with _reading(name, shown):
        image = Image.open(file, formats=FORMATS)
    with image:
        _check_size(image.size, name, shown)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, name, shown)
        # In place, because a copy takes a third of the time of decoding.
        _turn(image, name, shown, in_place=True)
        return _to_rgb(image, name, shown, image.format)


def _decode(image, name, shown):
    """Convert a user's Pillow image, which is not changed."""
    _check_size(image.size, name, shown)
    turned = _turn(image, name, shown, in_place=False) or image
    return _to_rgb(turned, name, shown, image.format)


def _turn(image, name, shown, in_place):
    """Apply a rotation of EXIF; return a new image if not `in_place`."""
    with _reading(name, shown):
        # Metadata may follow the pixels.
        image.load()
        sizes = [len(image.info.get(key) or b"") for key in EXIF_KEYS]
        if max(sizes) > EXIF_BYTES:
            return None
        return ImageOps.exif_transpose(image, in_place=in_place)


def _to_rgb(image, name, shown, file_format):
    if image.mode in ALPHA_MODES or image.has_transparency_data:
        return _by_strips(image, _over_white)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255.
        known = file_format in SCALED_FORMATS
        low, high = image.convert("I").getextrema()
        _check_16_bit(low, high, name, shown, known)
        return _by_strips(image, _from_16_bit)
    if image.mode == "F":
        return Image.fromarray(_from_array(image, name, shown))
    with _reading(name, shown):
        return image.convert("RGB")


def _from_array(image, name, file=None):
    """Convert an array-like of pixels to a uint8 array `(H, W, 3)`.

    Args:
        image: array-like.
        name: str, the picture's name in errors.
        file: str, the picture's file in errors, or None for an array.
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
    _check_size(array.shape[1::-1], name, shown)
    array = _to_eight_bit(array, name, shown)
    if channels == 4:
        return np.array(_by_strips(Image.fromarray(array), _over_white))
    array = array.reshape(*array.shape[:2], channels)
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _check_size(size, name, shown):
    """Reject a picture without pixels, or with more than Pillow allows.

    Args:
        size: pair of ints, width and height.
        name, shown: str, the picture's name and description in errors.
    """
    # Before pixels are decoded or copied: a file of a few hundred kilobytes can
    # hold gigabytes, and one byte can be broadcast to any number of pixels.
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    if not 0 < size[0] * size[1] <= limit:
        raise _size_error(name, shown)


def _size_error(name, shown):
    return ValueError(
        f"`{name}` must hold at least 1 and at most {Image.MAX_IMAGE_PIXELS} "
        f"pixels. Received: {name}={shown}"
    )


def _check_16_bit(low, high, name, shown, scale_known=False):
    """Reject values that are not from 0 to 65535, warn of dark pictures.

    Args:
        low, high: ints, the extreme values.
        name, shown: as `_check_size`.
        scale_known: bool, whether 65535 is known to be white. Otherwise an
            array without a value above 4095 is rejected: it nearly always has
            integers of 8, 10 or 12 bits.
    """
    dark = 0 < high <= _WHITE_OF_12_BITS
    message = f"`{name}` must use the range 0 to 65535 in uint16 or mode I."
    if low < 0 or high > 65535 or (dark and not scale_known):
        raise ValueError(f"{message} Received: {shown}, {low} to {high}")
    if dark:
        warnings.warn(f"{message} It has at most {high}.", stacklevel=2)


def _from_16_bit(image):
    """Convert a `PIL.Image` of mode `I` or `I;16` to RGB."""
    return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")


def _scaled(array):
    return np.rint(array / 257.0).astype("uint8")


def warn_of_mask(array, name):
    """Warn if a uint8 picture has only the values 0 and 1, and is not black."""
    if array.max() == 1:
        warnings.warn(
            f"`{name}` is nearly black: multiply a mask of 0 and 1 by 255.",
            stacklevel=2,
        )


def _by_strips(image, convert):
    """Convert a `PIL.Image` to RGB by `convert`, few rows at a time."""
    made = Image.new("RGB", image.size)
    rows = image.height // _STRIPS + 1
    for top in range(0, image.height, rows):
        stop = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, stop))
        made.paste(convert(strip), (0, top))
    return made


def _over_white(image):
    """Convert a `PIL.Image` with transparency to RGB over white."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _to_eight_bit(array, name, shown):
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        _check_16_bit(int(array.min()), int(array.max()), name, shown)
        strips = np.array_split(array, _STRIPS)
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


def _from_base64(text):
    """Decode the usual alphabet, or the URL-safe one."""
    return base64.b64decode(text, altchars=b"-_", validate=True)


def decoded(image, name="images"):
    """Decode a picture in base64 to bytes; return other pictures unchanged.

    A string is base64 if it begins as a picture does in base64 and is not the
    path of a file, or if it begins with `data:`.

    Args:
        image: one picture.
        name: str, the argument's name in errors.

    Raises:
        ValueError: damaged base64, or a `data:` URL without it.
    """
    if not isinstance(image, str):
        return image
    start = image[:64].encode("utf-8", "replace")
    if image.startswith("data:") or (
        is_base64(start) and not os.path.exists(image)
    ):
        return decode_base64(image, name)
    return image


def decode_base64(text, name="images"):
    """Decode base64 to bytes; the text is never a path.

    Args:
        text: str, base64 in the usual or the URL-safe alphabet, or a `data:`
            URL with it.
        name: str, the argument's name in errors.

    Raises:
        ValueError: damaged base64, or a `data:` URL without it.
    """
    if text.startswith("data:"):
        _, _, text = text.partition(";base64,")
    body = "".join(text.split()).rstrip("=")
    try:
        return _from_base64(body + "=" * (-len(body) % 4))
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be complete base64 data ({error}). "
            f"Received: {name} of {len(text)} characters, {text[:40]!r}..."
        ) from error
