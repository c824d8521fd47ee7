"""Drawn pictures, for the tests of search and of decoding."""

import io
import itertools
import struct
import zlib

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


def jpeg_of_scans(count, side=16, segment=b"", behind=b""):
    """A progressive JPEG whose last scan is repeated.

    Args:
        count: int, scans that it has, at least 10.
        side: int, pixels.
        segment: bytes of a comment in its head.
        behind: bytes behind the end of the picture.
    """
    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    more = last * (count - data.count(b"\xff\xda"))
    length = (2 + len(segment)).to_bytes(2, "big")
    comment = b"\xff\xfe" + length + segment
    return data[:2] + comment + data[2:-2] + more + data[-2:] + behind


def png_of(width, height):
    """A PNG of some 70 bytes that says that it has so many pixels."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def bomb(path):
    """A PNG of 10^10 pixels."""
    path.write_bytes(png_of(100_000, 100_000))
