"""Checks the inputs of visitors, with error messages for the page.

Gradio sends a picture as a dict with the path of an uploaded file.
"""

import os
import re

from PIL import Image

from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import open_image

# Pixels of a picture. Decoding takes up to 10 bytes each.
PIXELS = 50_000_000
# Length of a text.
CHARACTERS = 300
# Texts and pictures of a heat map.
TEXTS = PICTURES = 8
# Uploaded pictures of a search.
SEARCHED = 200


class RefusedInput(ValueError):
    """An invalid input; the page shows the message."""


def uploaded_path(value):
    """Return the path of an uploaded picture, a dict with `"path"` or None.

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
    paths = [uploaded_path(value.get("image")) for value in values]
    if not 0 < len(paths) <= most:
        raise RefusedInput(f"Choose 1 to {most} pictures, not {len(paths)}.")
    return paths


def without_examples(values, examples):
    """Return the paths of a gallery without those of examples, if it has any.

    Args:
        values: as of `uploaded_paths`.
        examples: list of such dicts, which filled the gallery first.
    """
    given = {example["image"]["path"] for example in examples}
    paths = uploaded_paths(values, SEARCHED)
    return [path for path in paths if path not in given] or paths


def opened_picture(path):
    """Check an uploaded picture, and open it as an RGB `PIL.Image`.

    Raises:
        RefusedInput: not a picture, a damaged one, or one with too many
            pixels or scans.
    """
    name = os.path.basename(path)
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as i:
            pixels = i.width * i.height
        if pixels <= PIXELS:
            return open_image(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pass
    # Pillow may raise any error for damaged files.
    except Exception as error:
        raise RefusedInput(
            f"“{name}” is not a picture that can be read. Choose a file of one "
            f"of these kinds: {', '.join(FORMATS)}."
        ) from error
    raise RefusedInput(
        f"“{name}” is too large: at most {PIXELS // 1_000_000} million pixels "
        "are read. Make the picture smaller, and choose it again."
    )


def checked_text(text, what):
    """Return a text without superfluous white space.

    Args:
        text: str.
        what: str, its name on the page, such as `"question"`.

    Raises:
        RefusedInput: the text is empty or too long.
    """
    text = " ".join(text.split()) if isinstance(text, str) else ""
    text = text.replace("\0", "")
    if not text:
        raise RefusedInput(f"Write a {what} first, or click an example.")
    if len(text) > CHARACTERS:
        raise RefusedInput(
            f"The {what} is too long: it has {len(text):,} characters. Write "
            f"at most {CHARACTERS}."
        )
    return text


def checked_lines(text):
    """Return the texts of a box, one on each line.

    Raises:
        RefusedInput: no text, too many, or one is too long.
    """
    lines = text.splitlines() if isinstance(text, str) else []
    lines = [line for line in lines if line.strip()]
    if not 0 < len(lines) <= TEXTS:
        raise RefusedInput(f"Write 1 to {TEXTS} texts, one on each line.")
    return [checked_text(line, "text") for line in lines]


def with_blanks(text):
    """Replace each blank `___` of a text by `<mask>`.

    Raises:
        RefusedInput: the text has no blank, is empty or too long.
    """
    text = re.sub("____*", "<mask>", checked_text(text, "sentence"))
    if "<mask>" not in text:
        raise RefusedInput(
            "Mark the missing word of the sentence by ___ (three underscores)."
        )
    return text
