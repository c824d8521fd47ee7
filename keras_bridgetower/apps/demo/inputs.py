"""Checks the inputs of visitors, with error messages for the page.

Values are as Gradio sends them: a picture is a dict with the path of the file,
which Gradio has checked to be an uploaded one.
"""

import dataclasses
import os
import re

from PIL import Image

from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import SCANS
from keras_bridgetower.preprocessing.images import TooManyScans
from keras_bridgetower.preprocessing.images import open_image

BLANK = "<mask>"
# The way a visitor writes a blank.
UNDERSCORES = "___"


class RefusedInput(ValueError):
    """An input cannot be used; the message is for the page."""


def uploaded_path(value):
    """Return the path of an uploaded picture.

    Args:
        value: a dict with `"path"`, or None.

    Raises:
        RefusedInput: there is no picture.
    """
    path = value.get("path") if isinstance(value, dict) else None
    if not path or not isinstance(path, str):
        raise RefusedInput(
            "Choose a picture first, or click one of the examples."
        )
    return path


def uploaded_paths(values, most):
    """Return the paths of the uploaded pictures of a gallery.

    Args:
        values: list of dicts with `"image"`, or None.
        most: int, how many there may be.

    Raises:
        RefusedInput: there are none, or too many.
    """
    values = values if isinstance(values, list) else []
    paths = [
        uploaded_path(value.get("image"))
        for value in values
        if "video" not in value
    ]
    if not paths:
        raise RefusedInput("Choose some pictures first.")
    if len(paths) > most:
        raise RefusedInput(
            f"Choose at most {most} pictures. You chose {len(paths)}."
        )
    return paths


def opened_picture(path, limits):
    """Open an uploaded picture, whose size is checked before it is decoded.

    Args:
        path: str.
        limits: `Limits`.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        RefusedInput: not a picture, a damaged one, or one with too many
            pixels or scans.
    """
    check_picture(path, limits)
    try:
        return open_image(path)
    except TooManyScans as error:
        raise RefusedInput(
            f"“{os.path.basename(path)}” has more than {SCANS} scans. Save it "
            "as a usual JPEG first."
        ) from error
    except (OSError, ValueError) as error:
        raise RefusedInput(_unreadable(path)) from error


def check_picture(path, limits):
    """Check that the head of a file is a picture's, and its number of pixels.

    Args:
        path: str.
        limits: `Limits`.

    Raises:
        RefusedInput: not a picture, or too many pixels.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as i:
            width, height = i.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise RefusedInput(_too_large(path, "too many", limits)) from e
    # Pillow may raise any error for damaged files.
    except Exception as error:
        raise RefusedInput(_unreadable(path)) from error
    if width * height > limits.pixels:
        size = f"{width:,} × {height:,}"
        raise RefusedInput(_too_large(path, size, limits))


def _unreadable(path):
    return (
        f"“{os.path.basename(path)}” is not a picture that can be read. Choose "
        f"a file of one of these kinds: {', '.join(FORMATS)}."
    )


def _too_large(path, size, limits):
    return (
        f"“{os.path.basename(path)}” is too large: it has {size} pixels. At "
        f"most {limits.pixels // 1_000_000} million pixels are read. Make the "
        "picture smaller, and choose it again."
    )


def checked_text(text, what, limits):
    """Return a text without superfluous white space.

    Args:
        text: str.
        what: str, its name on the page, such as `"question"`.
        limits: `Limits`.

    Raises:
        RefusedInput: it is empty or too long.
    """
    text = " ".join(text.split()) if isinstance(text, str) else ""
    text = text.replace("\0", "")
    if not text:
        raise RefusedInput(f"Write a {what} first, or click an example.")
    if len(text) > limits.characters:
        raise RefusedInput(
            f"The {what} is too long: it has {len(text):,} characters. Write "
            f"at most {limits.characters}."
        )
    return text


def checked_lines(text, limits):
    """Return the texts of a box, one on each line.

    Args:
        text: str.
        limits: `Limits`.

    Raises:
        RefusedInput: there are none or too many, or one is too long.
    """
    lines = text.splitlines() if isinstance(text, str) else []
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise RefusedInput("Write some texts first, one on each line.")
    if len(lines) > limits.texts:
        raise RefusedInput(
            f"Write at most {limits.texts} texts, one on each line. You wrote "
            f"{len(lines)}."
        )
    return [checked_text(line, "text", limits) for line in lines]


def with_blanks(text, limits):
    """Return a text with each blank written `<mask>`.

    Args:
        text: str, with `___` or `<mask>`.
        limits: `Limits`.

    Raises:
        RefusedInput: it has no blank, is empty or is too long.
    """
    text = checked_text(text, "sentence", limits)
    text = re.sub(f"{UNDERSCORES}_*", BLANK, text)
    if BLANK not in text:
        raise RefusedInput(
            f"Mark the missing word of the sentence by {UNDERSCORES} (three "
            "underscores)."
        )
    return text


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Args:
        pixels: int, pixels of a picture. Decoding takes up to 10 bytes each.
        file_bytes: int, size of an uploaded file.
        characters: int, length of a text.
        texts: int, texts of a heat map.
        pictures: int, pictures of a heat map.
        searched: int, uploaded pictures of a search.
        hits: int, pictures that a search shows.
        at_once: int, requests that run at the same time. Others wait.
        waiting: int, requests that wait. Others are rejected.
        models: int, models in memory.
        indexes: int, indexes of pictures that are kept.
    """

    pixels: int = 50_000_000
    file_bytes: int = 30_000_000
    characters: int = 300
    texts: int = 8
    pictures: int = 8
    searched: int = 200
    hits: int = 6
    at_once: int = 4
    waiting: int = 64
    models: int = 8
    indexes: int = 8
