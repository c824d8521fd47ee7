"""The photo world, its tables and splits, and pictures from outside of it."""

import collections
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_photos.training import credits
from keras_bridgetower_photos.training import qt_resources
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import unknown
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


@pytest.mark.parametrize("version", [1, 3])
def test_files_of_a_resource_file(version, tmp_path):
    path = tmp_path / "made.rcc"
    path.write_bytes(resource(version))
    assert list(qt_resources.files(path)) == [("folder/one.webp", b"hello")]
    body = struct.pack(">I", 5) + zlib.compress(b"hello")
    path.write_bytes(resource(version, qt_resources.COMPRESSED, body))
    assert list(qt_resources.files(path)) == [("folder/one.webp", b"hello")]


def test_groups_and_nouns_are_on_one_side(world):
    sides = collections.defaultdict(set)
    for row in world.things + world.photographs:
        sides["group", row.group].add(row.split)
        sides["name", row.name].add(row.split)
        if row.noun not in BROAD_NOUNS:
            sides["noun", row.noun].add(row.split)
    assert {what for what, found in sides.items() if len(found) > 1} == set()


def test_each_picture_of_the_test_is_described(world):
    """By somebody who saw the pictures, and neither names nor files."""
    path = pathlib.Path(things.__file__).with_name("descriptions.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    side = {one.id: one.split for table in world for one in table}
    assert set(told["test"]) == {i for i in side if side[i] == "test"}
    assert {side[i] for i in told["validation"]} == {"validation"}
    for texts in told.values():
        assert len(set(texts.values())) == len(texts)


def test_cut_out_is_cropped_and_small(tmp_path, world):
    image = Image.new("RGBA", (900, 500), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (100, 50, 740, 210))
    image.save(tmp_path / "thing.png")
    thing = world.things[0]._replace(file=tmp_path / "thing.png")
    cut = things.cut_out(thing)
    assert (cut.mode, cut.size) == ("RGBA", (320, 80))
    assert (np.asarray(cut) == (0, 0, 255, 255)).all()


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


def test_last_paragraph_about_a_picture_counts():
    listed = credits.paragraphs(COPYRIGHT)
    assert len(listed) == 3
    assert listed[1].authors == "2021 A. Painter; 2022 B. Painter"
    assert listed[1].source == "found at https://example.org"
    for path, *wanted in (
        ("src/fish/carp", "public-domain", "picture"),
        ("src/fish/perch", "CC-BY-2.0", "folder"),
        ("src/birds/owl", "CC-BY-2.0", "picture"),
        ("src/birds/owl2", "GPL-3", "collection"),
    ):
        paragraph, told = credits.match(path, listed)
        assert [paragraph.licence, told] == wanted


SIGN = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10">
<rect x="5" width="10" height="10" fill="#0000ff"/></svg>"""
STAMPS = "usr/share/tuxpaint/stamps"
ACTIVITIES = "pictures/src/activities"
# Of paintings of one piece, but the first, which has two.
PIECES = ("00_a1", "00_a2", *[f"{i:02}_1" for i in range(2, 48)])


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two packages of red pictures, and signs of blue squares."""
    wide = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    wide.paste((255, 0, 0, 255), (10, 0, 30, 20))
    for path, image in (
        (f"tux/{STAMPS}/town/cartoon/hut.png", wide),
        (f"tux/{STAMPS}/town/cartoon/roofs/igloo.png", wide.quantize()),
        (f"tux/{STAMPS}/town/church.png", wide),
        (f"tux/{STAMPS}/symbols/chess/king.png", wide),
        (f"tux/{STAMPS}/symbols/money/coin.png", wide),
        (f"gc/{ACTIVITIES}/lang/resource/duck.webp", wide),
        (f"gc/{ACTIVITIES}/leftright/resource/left.webp", wide),
        *(
            (
                f"gc/{ACTIVITIES}/paintings/resource/image/{piece}.webp",
                Image.new("RGB", (8, 8), (0, number, 0)),
            )
            for number, piece in enumerate(PIECES)
        ),
        *(
            (f"gc/{ACTIVITIES}/details/resource/image/{name}.webp", wide)
            for name in ("Gogh4_0", "Gogh4_background", "Nagoya_background")
        ),
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(
            file, **({"lossless": True} if file.suffix == ".webp" else {})
        )

    def files(path):
        return [("other.svg", b""), (f"{path.stem}/{path.stem}.svg", SIGN)]

    monkeypatch.setattr(qt_resources, "files", files)
    world = tiny_photos.disks(tmp_path)
    monkeypatch.setattr(things, "load", lambda folders: world)
    return {"tuxpaint": tmp_path / "tux", "gcompris": tmp_path / "gc"}


def test_unknown_pictures(folders):
    found = unknown.unknown(folders, side=64)
    names = collections.defaultdict(list)
    for name, kind, picture in found:
        names[kind].append(name)
        assert picture.size == (64, 64) and picture.mode == "RGB"
    assert names["cartoon"] == ["hut", "igloo"]
    assert names["symbol"] == ["king"]
    # A photograph of the world is none of the paintings.
    assert names["painting"] == ["Gogh4_background"]
    assert names["piece of a painting"] == [*PIECES[::2]]
    for kind in ("noise", "gradient", "pattern", "page", "sign"):
        assert len(names[kind]) == 24
    assert len(found) == len({(name, kind) for name, kind, _ in found})
    shown = {(kind, name): np.asarray(image) for name, kind, image in found}
    for which, color in (
        (("cartoon", "igloo"), [255, 0, 0]),
        (("sign", "chess"), [0, 0, 255]),
    ):
        assert shown[which][2, 32].tolist() == [255, 255, 255]
        assert shown[which][32, 32].tolist() == color


def test_training_shows_other_pictures(folders):
    lang = folders["gcompris"] / "pictures/src/activities/lang/resource"
    for number in range(unknown.COUNT + 9):
        shade = Image.new("RGB", (8, 8), (number, 0, 0))
        shade.save(lang / f"duck{number:02}.webp", lossless=True)
    tested, taught = (
        {(kind, picture.tobytes()) for _, kind, picture in find(folders, 64)}
        for find in (unknown.unknown, unknown.outliers)
    )
    counts = collections.Counter(kind for kind, _ in taught)
    assert counts.pop("noise") == counts.pop("gradient") == 48
    # The photographs of training are gray all over.
    assert counts == {"drawing": 10, "piece of a painting": 23, "texture": 1}
    assert not tested & taught
    drawings = [kind for kind, _ in tested | taught if kind == "drawing"]
    assert len(drawings) == unknown.COUNT + 10
