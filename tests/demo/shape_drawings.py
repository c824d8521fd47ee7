"""Draws pictures of one colored shape."""

from easy_world.pictures import COLOURS
from PIL import Image
from PIL import ImageDraw

SIDE = 256
# Drawn at this scale and shrunk, for smooth edges.
_SCALE = 4
_BACKGROUND = (241, 245, 240)
# Name, shape, color, and in sixty-fourths of the side: center and width.
_DRAWN = (
    ("blue_circle", "circle", "blue", 20, 20, 20),
    ("red_triangle", "triangle", "red", 44, 24, 26),
    ("teal_rectangle", "rectangle", "teal", 32, 44, 30),
    ("yellow_circle", "circle", "yellow", 32, 32, 12),
    ("black_rectangle", "rectangle", "black", 14, 50, 14),
    ("green_triangle", "triangle", "green", 48, 48, 20),
    ("gray_circle", "circle", "gray", 50, 14, 18),
    ("brown_rectangle", "rectangle", "brown", 20, 32, 28),
    ("red_circle", "circle", "red", 46, 46, 26),
    ("blue_triangle", "triangle", "blue", 16, 46, 20),
    ("yellow_rectangle", "rectangle", "yellow", 46, 32, 22),
    ("black_triangle", "triangle", "black", 32, 16, 14),
)


def draw_all(folder):
    """Write the example pictures into a folder, as PNG files.

    Args:
        folder: `pathlib.Path` of an existing folder.

    Returns:
        dict from name to path, a str.
    """
    paths = {}
    for name, *what in _DRAWN:
        paths[name] = str(folder / f"{name}.png")
        drawn(*what).save(paths[name])
    return paths


def drawn(shape, color, x, y, width, side=SIDE):
    """Draw a picture of one shape.

    Args:
        shape: `"circle"`, `"rectangle"` or `"triangle"`.
        color: str, one of easy-VQA's colors.
        x, y, width: numbers, the center of the shape and its width, in
            sixty-fourths of the picture's side.
        side: int, pixels.

    Returns:
        `PIL.Image.Image` of mode RGB.
    """
    unit = side * _SCALE / 64
    picture = Image.new("RGB", (side * _SCALE,) * 2, _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    x, y, half = x * unit, y * unit, width * unit / 2
    box = (x - half, y - half, x + half, y + half)
    fill = COLOURS[color]
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "rectangle":
        pen.rectangle(
            (x - half, y - 0.7 * half, x + half, y + 0.7 * half), fill
        )
    else:
        pen.polygon([(x, y - half), (x - half, y + half), box[2:]], fill=fill)
    return picture.resize((side, side), Image.Resampling.LANCZOS)
