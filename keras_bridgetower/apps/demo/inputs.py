"""Checks what a visitor gave, and says in plain words what is wrong.

Values come as Gradio sends them: a picture as a dict with the path of the
uploaded file, which Gradio has found to be one that was uploaded.
"""

import os

from PIL import Image

from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import SCANS
from keras_bridgetower.preprocessing.images import TooManyScans
from keras_bridgetower.preprocessing.images import open_image

BLANK = "<mask>"
# What a visitor may write for a blank.
UNDERSCORES = "___"


class RefusedInput(ValueError):
    """What a visitor gave cannot be used; the message is for the page."""


def path_of(value):
    """The path of an uploaded picture.

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


def paths_of(values, most):
    """The paths of the uploaded pictures of a gallery.

    Args:
        values: list of dicts with `"image"`, or None.
        most: int, how many there may be.

    Raises:
        RefusedInput: there are none, or too many.
    """
    values = values if isinstance(values, list) else []
    paths = [
        path_of(value.get("image")) for value in values if "video" not in value
    ]
    if not paths:
        raise RefusedInput("Choose some pictures first.")
    if len(paths) > most:
        raise RefusedInput(
            f"Choose at most {most} pictures. You chose {len(paths)}."
        )
    return paths


def opened_picture(path, limits):
    """An uploaded picture, whose size is looked at before it is decoded.

    Args:
        path: str.
        limits: `Limits`.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        RefusedInput: no picture, a damaged one, or one of too many pixels or
            scans.
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
    """Refuse a file whose head is no picture's, or tells of too many pixels.

    Args:
        path: str.
        limits: `Limits`.

    Raises:
        RefusedInput: it is refused.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as i:
            width, height = i.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise RefusedInput(_too_large(path, "too many", limits)) from e
    # Damaged files make Pillow raise nearly anything.
    except Exception as error:
        raise RefusedInput(_unreadable(path)) from error
    if width * height > limits.pixels:
        shown = f"{width:,} × {height:,}"
        raise RefusedInput(_too_large(path, shown, limits))


def _unreadable(path):
    return (
        f"“{os.path.basename(path)}” is not a picture that can be read. Choose "
        f"a file of one of these kinds: {', '.join(FORMATS)}."
    )


def _too_large(path, shown, limits):
    return (
        f"“{os.path.basename(path)}” is too large: it has {shown} pixels. At "
        f"most {limits.pixels // 1_000_000} million pixels are read. Make the "
        "picture smaller, and choose it again."
    )


def checked_text(text, what, limits):
    """A text without space around it.

    Args:
        text: str.
        what: str, what the page calls it, such as `"question"`.
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
    """The texts of a box that has one on each line.

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
    """A text whose blanks are `<mask>`.

    Args:
        text: str, with `___` or `<mask>`.
        limits: `Limits`.

    Raises:
        RefusedInput: it has no blank, is empty or is too long.
    """
    text = checked_text(text, "sentence", limits)
    while UNDERSCORES + "_" in text:
        text = text.replace(UNDERSCORES + "_", UNDERSCORES)
    text = text.replace(UNDERSCORES, BLANK)
    if BLANK not in text:
        raise RefusedInput(
            f"Mark the missing word of the sentence by {UNDERSCORES} (three "
            "underscores)."
        )
    return text
