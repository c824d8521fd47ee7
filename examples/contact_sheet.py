"""Draws pictures, with lines of text below each, into one picture."""

from PIL import Image
from PIL import ImageDraw

SIDE, LINE, MARGIN = 192, 14, 8


def contact_sheet(cells, columns=4):
    """Lay pictures out in rows.

    Args:
        cells: list of `(pictures, lines)`: arrays `(H, W, 3)` of uint8 that
            stand side by side, and strings to write below them.
        columns: int, cells in a row.

    Returns:
        `PIL.Image.Image`.
    """
    width = max(len(pictures) for pictures, _ in cells) * SIDE + MARGIN
    height = SIDE + MARGIN + LINE * max(len(lines) for _, lines in cells)
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pictures, lines) in enumerate(cells):
        left, top = i % columns * width, i // columns * height
        for place, picture in enumerate(pictures):
            shown = Image.fromarray(picture).resize((SIDE, SIDE))
            sheet.paste(shown, (left + place * SIDE, top))
        for number, line in enumerate(lines):
            draw.text(
                (left + 2, top + SIDE + 2 + number * LINE), line, fill="black"
            )
    return sheet
