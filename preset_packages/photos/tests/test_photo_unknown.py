"""Pictures from outside the photo world."""

import collections

import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_photos.training import qt_resources
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import unknown
from PIL import Image

pytestmark = FASTEST
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
