"""Read the tables of photographed things and of photographs.

`things.csv` lists cut-outs of the package "tuxpaint", `photographs.csv`
pictures of the package "gcompris": what is on them, how else it is called,
and which side of a split it is on. People wrote them who looked at each
picture. One group, be it near copies or one noun, is on one side.
"""

import csv
import pathlib
from typing import NamedTuple

from PIL import Image

# Each kind of thing, and the broad kind that it belongs to.
BROAD = {
    "mammal": "animal",
    "bird": "animal",
    "fish": "animal",
    "insect": "animal",
    "invertebrate": "animal",
    "reptile or amphibian": "animal",
    "fruit": "food",
    "vegetable": "food",
    "food": "food",
    "flower": "plant",
    "plant": "plant",
    "vehicle": "vehicle",
    "musical instrument": "object",
    "tool": "object",
    "kitchenware": "object",
    "device": "object",
    "sports equipment": "object",
    "coin": "object",
    "household object": "object",
    "street object": "object",
    "building": "place",
    "monument": "place",
    "landscape": "place",
    "celestial body": "celestial body",
    "person": "person",
}
KINDS = tuple(BROAD)
COLORS = (
    "black",
    "blue",
    "brown",
    "gray",
    "green",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
)
PLACES = (
    "amphitheater",
    "bridge",
    "canyon",
    "capitol",
    "castle",
    "church",
    "cliff",
    "dam",
    "fort",
    "gate",
    "house",
    "island",
    "lake",
    "mosque",
    "mountain",
    "opera house",
    "palace",
    "pyramid",
    "ruins",
    "sea",
    "snow",
    "solar panels",
    "statue",
    "temple",
    "tower",
    "village",
    "wall",
    "wind farm",
    "windmill",
)
SPLITS = ("train", "validation", "test")
# The longer side of a cut-out, in pixels.
SIDE = 320


class Thing(NamedTuple):
    """A photographed object, cut out."""

    id: str  # Its file in the package, without the folders that all share.
    file: pathlib.Path
    noun: str  # The usual word, singular, without an article: "owl".
    name: str  # As specific as can be, "snowy owl", or the noun again.
    names: tuple  # Other usual words for it.
    kind: str  # One of `KINDS`.
    color: str  # One of `COLORS`, or "" where no single one fits.
    group: str  # Equal for what must be on one side of a split.
    split: str  # One of `SPLITS`.
    paint: str = ""  # A color that it does not have by nature, for training.


class Photograph(NamedTuple):
    """A whole photograph."""

    id: str
    file: pathlib.Path
    noun: str
    name: str
    names: tuple
    kind: str
    color: str
    group: str
    split: str
    # One of `PLACES` where it can be the background of a collage, or "".
    place: str


class World(NamedTuple):
    """All things and photographs."""

    things: tuple
    photographs: tuple


def load(folders):
    """Read the world from the folders that `packages.fetch` returns."""
    stamps = pathlib.Path(folders["tuxpaint"]) / "usr/share/tuxpaint/stamps"
    pictures = pathlib.Path(folders["gcompris"]) / "pictures"
    things = (
        Thing(file=stamps / f"{row['id']}.png", **row)
        for row in rows("things.csv")
    )
    photographs = (
        Photograph(file=pictures / f"{source(row['id'])}.webp", **row)
        for row in rows("photographs.csv")
    )
    return World(tuple(things), tuple(photographs))


def rows(table):
    """Yield the rows of a table as dictionaries."""
    path = pathlib.Path(__file__).with_name(table)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            names = tuple(name for name in row["names"].split(";") if name)
            yield {**row, "names": names}


def source(photograph):
    """Return the path of a photograph's id among the sources of GCompris."""
    activity, path = photograph.split("/", 1)
    return f"src/activities/{activity}/resource/{path}"


def cut_out(thing):
    """Return a thing as RGBA, cropped to what is visible of it."""
    image = Image.open(thing.file).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((SIDE, SIDE))
    return image


def picture(photograph):
    """Return a photograph as RGB; what is transparent is black, as in space."""
    image = Image.open(photograph.file).convert("RGBA")
    black = Image.new("RGBA", image.size, "black")
    return Image.alpha_composite(black, image).convert("RGB")
