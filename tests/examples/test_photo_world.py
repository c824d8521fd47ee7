"""The photo world: its packages, its tables and their splits."""

import collections
import csv
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from builders import FASTEST
from emoji_world.packages import Package
from photo_world import credits
from photo_world import packages
from photo_world import qt_resources
from photo_world import things
from PIL import Image

pytestmark = FASTEST

# Nouns of many different things: each of these is held out by itself.
BROAD_NOUNS = {
    *("fish", "flower", "planet", "coin", "solar panel", "windmill", "dam"),
    *("amphitheater", "bridge", "castle", "cathedral", "cave", "church"),
    *("fort", "gate", "memorial", "palace", "pyramid", "ruins", "statue"),
    *("temple", "tower"),
}


@pytest.fixture(scope="module")
def world():
    return things.load({"tuxpaint": "stamps", "gcompris": "data"})


def resource(version, flags=0, body=b"hello"):
    """Return a resource file that holds `body` at `folder/one.webp`."""
    names, starts = b"", []
    for name in ("folder", "one.webp"):
        starts.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data = struct.pack(">I", len(body)) + body
    entries = (
        struct.pack(">IHII", 0, 2, 1, 1),
        struct.pack(">IHII", starts[0], 2, 1, 2),
        struct.pack(">IHIII", starts[1], flags, 0, 0, 0)[:14],
    )
    time = bytes(0 if version == 1 else 8)
    tree = b"".join(entry + time for entry in entries)
    header = 20 if version < 3 else 24
    places = (header, header + len(tree), header + len(tree) + len(data))
    head = struct.pack(">4s4I", b"qres", version, *places)
    return head.ljust(header, b"\0") + tree + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_a_resource_file(version, tmp_path):
    path = tmp_path / "made.rcc"
    path.write_bytes(resource(version))
    assert list(qt_resources.files(path)) == [("folder/one.webp", b"hello")]
    body = struct.pack(">I", 5) + zlib.compress(b"hello")
    path.write_bytes(resource(version, qt_resources.COMPRESSED, body))
    assert list(qt_resources.files(path)) == [("folder/one.webp", b"hello")]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (resource(2, qt_resources.ZSTANDARD), "Zstandard"),
        (resource(4), "version 4"),
        (b"GIF8" + bytes(16), "not a Qt resource file"),
    ],
)
def test_unknown_resource_files_are_refused(made, message, tmp_path):
    path = tmp_path / "made.rcc"
    path.write_bytes(made)
    with pytest.raises(ValueError, match=message):
        list(qt_resources.files(path))


def test_unpack_pictures(tmp_path):
    (tmp_path / "made.rcc").write_bytes(resource(2))
    packages.unpack_pictures(tmp_path)
    file = tmp_path / "pictures/folder/one.webp"
    assert file.read_bytes() == b"hello"
    file.write_bytes(b"kept")
    packages.unpack_pictures(tmp_path)
    assert file.read_bytes() == b"kept"


def test_packages_are_listed_with_sums_and_credits():
    for package in packages.PACKAGES.values():
        assert isinstance(package, Package)
        assert re.fullmatch("[0-9a-f]{64}", package.sha256)
        assert package.licence and package.credit


def test_tables_keep_to_the_words_listed(world):
    rows = world.things + world.photographs
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.kind in things.KINDS
        assert row.color in ("", *things.COLORS)
        assert row.split in things.SPLITS
        assert row.group
        words = (row.noun, row.name, *row.names)
        assert all(word == word.strip() != "" for word in words), words
        assert not re.match("(a|an|the) ", row.name), row.name
        # The name adds to the noun, and other names repeat neither.
        assert len({row.noun, *row.names}) == 1 + len(row.names), words
        assert row.name not in row.names, words
    assert {p.place for p in world.photographs} == {"", *things.PLACES}
    assert {row.kind for row in rows} == set(things.KINDS)


def test_tables_are_sorted():
    for table in ("things.csv", "photographs.csv"):
        path = pathlib.Path(things.__file__).with_name(table)
        with path.open(encoding="utf-8", newline="") as file:
            ids = [row["id"] for row in csv.DictReader(file)]
        assert ids == sorted(ids)


def test_groups_and_nouns_are_on_one_side(world):
    sides = collections.defaultdict(set)
    for row in world.things + world.photographs:
        sides["group", row.group].add(row.split)
        sides["name", row.name].add(row.split)
        if row.noun not in BROAD_NOUNS:
            sides["noun", row.noun].add(row.split)
    assert {what for what, found in sides.items() if len(found) > 1} == set()


def test_splits_are_large_enough(world):
    def count(rows):
        return collections.Counter(row.split for row in rows)

    assert count(world.things)["test"] >= 80
    assert count(world.things)["validation"] >= 35
    assert count(world.photographs)["test"] >= 60
    places = count(p for p in world.photographs if p.place)
    assert places["test"] >= 30
    assert places["validation"] >= 12
    kinds = collections.defaultdict(collections.Counter)
    for row in world.things + world.photographs:
        kinds[row.kind][row.split] += 1
    for kind, found in kinds.items():
        assert found["train"] >= 0.6 * found.total(), kind
        # Of reptiles and amphibians there are seven in all.
        few = kind == "reptile or amphibian"
        assert found["test"] >= (2 if few else 3), kind


def test_what_is_tried_first_is_in_training(world):
    rows = world.things + world.photographs
    known = {row.noun for row in rows if row.split == "train"}
    first = "cat dog cup apple car horse banana guitar".split()
    assert known >= set(first)


def test_cut_out_is_cropped_and_small(tmp_path, world):
    image = Image.new("RGBA", (900, 500), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (100, 50, 740, 210))
    image.save(tmp_path / "thing.png")
    thing = world.things[0]._replace(file=tmp_path / "thing.png")
    cut = things.cut_out(thing)
    assert (cut.mode, cut.size) == ("RGBA", (320, 80))
    assert (np.asarray(cut) == (0, 0, 255, 255)).all()


def test_picture_is_black_where_it_is_transparent(tmp_path, world):
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 255, 0, 255))
    image.save(tmp_path / "planet.webp", lossless=True)
    photograph = world.photographs[0]
    seen = things.picture(photograph._replace(file=tmp_path / "planet.webp"))
    assert seen.mode == "RGB"
    assert seen.getpixel((0, 0)) == (0, 255, 0)
    assert seen.getpixel((5, 2)) == (0, 0, 0)


COPYRIGHT = """Format: 1.0

Files: *
Copyright: 2020 The Collection
License: GPL-3

Files: src/fish/*
       src/birds/owl.jpg
Copyright: 2021 A. Painter
           2022 B. Painter
License: CC-BY-2.0
Comment: found at
 https://example.org

Files: src/fish/carp.png
Copyright: C. Diver
License: public-domain

License: GPL-3
 A long text.
"""


@pytest.mark.parametrize(
    ("path", "licence", "named"),
    [
        ("src/fish/carp", "public-domain", "picture"),
        ("src/fish/perch", "CC-BY-2.0", "folder"),
        ("src/birds/owl", "CC-BY-2.0", "picture"),
        ("src/birds/owl2", "GPL-3", "collection"),
    ],
)
def test_last_paragraph_about_a_picture_counts(path, licence, named):
    listed = credits.paragraphs(COPYRIGHT)
    assert len(listed) == 3
    assert listed[1].authors == "2021 A. Painter; 2022 B. Painter"
    assert listed[1].source == "found at https://example.org"
    paragraph, told = credits.match(path, listed)
    assert (paragraph.licence, told) == (licence, named)


def test_artist_is_that_of_the_picture(tmp_path):
    image = Image.new("RGB", (4, 4))
    image.save(tmp_path / "plain.webp")
    data = image.getexif()
    data[315] = "D. Photographer "
    image.save(tmp_path / "signed.webp", exif=data)
    assert credits.artist(tmp_path / "plain.webp") == ""
    assert credits.artist(tmp_path / "signed.webp") == "D. Photographer"
