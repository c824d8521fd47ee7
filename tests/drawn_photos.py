"""Drawn pictures on the disk, for the tests of search."""

import itertools

import numpy as np
from PIL import Image
from PIL import ImageDraw

SHAPES = ("ellipse", "rectangle")
COLOURS = ("red", "blue", "green", "yellow", "black")
# Kinds of stores, and the package that each needs.
PACKAGES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


def draw(folder, shapes=SHAPES, copies=1):
    """A folder of pictures, in two subfolders, and what is none."""
    rng = np.random.default_rng(0)
    for shape, colour, copy in itertools.product(
        shapes, COLOURS, range(copies)
    ):
        below = folder / shape
        below.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (64, 64), (230, 235, 240))
        x, y = (int(n) for n in rng.integers(0, 40, 2))
        box = (x, y, x + 22, y + 22)
        getattr(ImageDraw.Draw(picture), shape)(box, fill=colour)
        picture.save(below / f"{colour}_{copy}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "notes.txt").write_text("no picture")
    return folder
