"""License and authors of each picture, for `release`.

They come from the copyright files of the packages, and from the pictures' own
data. GCompris replaced some pictures, most fish among them, without an update
of its copyright file, so an address may show another picture.
"""

import fnmatch
import pathlib
import re
from typing import NamedTuple

from PIL import ExifTags
from PIL import Image

from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things


class Credit(NamedTuple):
    """The license of a picture, and who made it."""

    picture: str
    package: str
    licence: str
    authors: str
    source: str  # An address or a remark in the copyright file, or "".
    named: str  # What the file names: "picture", "folder" or "collection".
    artist: str  # The author in the picture's own data, or "".


class Paragraph(NamedTuple):
    """One paragraph of a copyright file: files with one license."""

    patterns: tuple
    licence: str
    authors: str
    source: str


def paragraphs(text):
    """Read the paragraphs about files in Debian's machine-readable format."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        # A line that begins with a space goes on with the field before it.
        fields = dict(re.findall(r"^([\w-]+):((?:.*\n )*.*)$", block, re.M))
        if "Files" in fields:
            patterns = tuple(fields["Files"].split())
            licence = _lines(fields["License"])[0]
            authors = "; ".join(_lines(fields["Copyright"]))
            source = " ".join(_lines(fields.get("Comment", "")))
            found.append(Paragraph(patterns, licence, authors, source))
    return found


def _lines(field):
    return [line.strip() for line in field.strip().split("\n")]


def match(path, listed):
    """Return the last paragraph about a path, and what it names."""
    for paragraph in reversed(listed):
        for pattern in paragraph.patterns:
            # The packages keep pictures in another format than the sources.
            stem = re.sub(r"\.\w+$", "", pattern)
            if fnmatch.fnmatch(path, stem):
                named = "folder" if "*" in stem else "picture"
                return paragraph, "collection" if stem == "*" else named
    raise ValueError(f"no paragraph is about `{path}`")


def artist(file):
    """Return the author that the data of a picture name, or ""."""
    with Image.open(file) as image:
        return str(image.getexif().get(ExifTags.Base.Artist, "")).strip()


def credits(folders):
    """Return the credits of all pictures of the world."""
    world = things.load(folders)
    found = []
    for key, pictures in (
        ("tuxpaint", {thing: thing.id for thing in world.things}),
        ("gcompris", {p: things.source(p.id) for p in world.photographs}),
    ):
        package = packages.PACKAGES[key]
        documents = pathlib.Path(folders[key]) / "usr/share/doc"
        file = documents / package.name / "copyright"
        listed = paragraphs(file.read_text(encoding="utf-8"))
        for picture, path in pictures.items():
            paragraph, named = match(path, listed)
            whole = named == "collection"
            credit = Credit(
                picture.id,
                package.name,
                paragraph.licence,
                package.credit if whole else paragraph.authors,
                paragraph.source,
                named,
                artist(picture.file),
            )
            found.append(credit)
    return found
