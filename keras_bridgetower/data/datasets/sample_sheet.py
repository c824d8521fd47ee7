"""Draws many samples, with texts and labels, into one picture."""

import textwrap

from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps

from keras_bridgetower.preprocessing.images import decode_image

SIDE, GAP, LINE, LINES = 200, 10, 14, 6
FONT_SIZE, LETTERS = 11, 34


def sample_sheet(samples, labels, columns=4):
    """Draw samples side by side, in rows.

    Args:
        samples: list of `Item`.
        labels: list of str, the classes.
        columns: int, number of samples in a row.

    Returns:
        `PIL.Image.Image`.

    Raises:
        ValueError: a picture cannot be read; the error names its sample.
    """
    rows = -(-len(samples) // columns)
    width, height = SIDE + GAP, SIDE + LINES * LINE + GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for number, item in enumerate(samples):
        row, column = divmod(number, columns)
        left, top = column * width + GAP // 2, row * height + GAP // 2
        for i, image in enumerate(item.images):
            side = SIDE // len(item.images)
            box = left + i * side, top
            name = f"picture of sample {item.sample.id!r}"
            sheet.paste(_thumbnail(image, name, side - 2), box)
        lines = textwrap.wrap(item.sample.text, LETTERS)[: LINES - 2]
        lines += [_answer(item.sample, labels), item.sample.id]
        for i, line in enumerate(lines):
            place = left, top + SIDE + i * LINE
            draw.text(place, line[:LETTERS], "black", font)
    return sheet


def _thumbnail(image, name, side):
    small = ImageOps.contain(decode_image(image, name), (side, SIDE))
    return ImageOps.pad(small, (side, SIDE), color=(230, 230, 230))


def _answer(sample, labels):
    scores = sample.scores or (None,) * len(sample.labels)
    return ", ".join(
        labels[label] if score is None else f"{labels[label]} {score:.1f}"
        for label, score in zip(sample.labels, scores, strict=True)
    )
