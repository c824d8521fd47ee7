"""Pictures on the disk, models that are opened once, and both stores."""

import itertools

import numpy as np
import pytest
from PIL import Image
from PIL import ImageDraw

from keras_bridgetower.search.models import SearchModels

# Two-way with a matching head, and three-way without.
MATCHING = "bridgetower_tiny_easy_pretrain"
THREE_WAY = "bridgetower_tiny_easy_contrastive"
SHAPES = ("ellipse", "rectangle")
COLOURS = ("red", "blue", "green", "yellow", "black")
PACKAGES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


@pytest.fixture(scope="session")
def matching():
    return SearchModels.from_preset(MATCHING)


@pytest.fixture(scope="session")
def three_way():
    return SearchModels.from_preset(THREE_WAY)


@pytest.fixture(params=PACKAGES)
def store_name(request, tmp_path):
    """A store as a user names it, of either kind."""
    pytest.importorskip(PACKAGES[request.param], reason="the extra `search`")
    prefix = "" if request.param == "lancedb" else "qdrant:"
    return f"{prefix}{tmp_path / 'index'}"


@pytest.fixture
def lance_name(tmp_path):
    pytest.importorskip("lancedb", reason="the extra `search`")
    return str(tmp_path / "index")


@pytest.fixture
def photos(tmp_path):
    return draw(tmp_path / "photos")


def draw(folder, copies=1):
    """A folder of pictures, in two subfolders, and what is none."""
    rng = np.random.default_rng(0)
    for shape, colour, copy in itertools.product(
        SHAPES, COLOURS, range(copies)
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
