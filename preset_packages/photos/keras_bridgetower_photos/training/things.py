"""Read the tables of photographed things and of photographs.

`things.csv` lists cut-outs of the package "tuxpaint", `photographs.csv`
pictures of the package "gcompris": their names, colors, kinds and splits,
labeled by hand. All rows of a group (near copies, or one noun) share a split.
"""

import csv
import json
import pathlib
from typing import NamedTuple

from PIL import Image

_TABLES = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
BROAD = _TABLES["broad kinds"]  # The broad kind of each kind of thing.
KINDS = tuple(BROAD)
COLORS = tuple(_TABLES["colors"])
PLACES = tuple(_TABLES["places"])
SPLITS = ("train", "validation", "test")
# The longer side of a cut-out, in pixels.
SIDE = 320


class Thing(NamedTuple):
    """A photographed object, cut out."""

    id: str  # Path in the package, below the shared folder.
    file: pathlib.Path
    noun: str  # The usual word, singular, without an article: "owl".
    name: str  # The most specific name, "snowy owl", or the noun again.
    names: tuple  # Other usual words for it.
    kind: str  # One of `KINDS`.
    color: str  # One of `COLORS`, or "" where no single one fits.
    group: str  # Rows of one group share a split.
    split: str  # One of `SPLITS`.
    paint: str = ""  # The color it is painted in, for training.


class Photograph(NamedTuple):
    """A whole photograph, with the fields of `Thing`."""

    id: str
    file: pathlib.Path
    noun: str
    name: str
    names: tuple
    kind: str
    color: str
    group: str
    split: str
    place: str  # One of `PLACES`, or "" if it is no background of a collage.


class World(NamedTuple):
    """All things and photographs."""

    things: tuple
    photographs: tuple

    @property
    def shown(self):
        """All of both, as in a gallery."""
        return [*self.things, *self.photographs]


def load(folders):
    """Read the world from the folders that `packages.fetch` returns."""
    pictures = pathlib.Path(folders["gcompris"]) / "pictures"
    things = (
        Thing(file=stamps(folders) / f"{row['id']}.png", **row)
        for row in rows("things.csv")
    )
    photographs = (
        Photograph(file=pictures / f"{source(row['id'])}.webp", **row)
        for row in rows("photographs.csv")
    )
    return World(tuple(things), tuple(photographs))


def stamps(folders):
    """Return the folder of the cut-outs."""
    return pathlib.Path(folders["tuxpaint"]) / "usr/share/tuxpaint/stamps"


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
