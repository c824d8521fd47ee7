"""Fixtures: pictures on disk, models opened once, and both stores."""

import contextlib

import pytest
from drawn_photos import PACKAGES
from drawn_photos import draw

from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import SearchModels

# Two-way with a matching head, and three-way without.
MATCHING = "bridgetower_tiny_easy_pretrain"
THREE_WAY = "bridgetower_tiny_easy_contrastive"


@pytest.fixture(scope="session")
def matching():
    models = SearchModels.from_preset(MATCHING)
    models.reranks = True  # No card says so.
    return models


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


@pytest.fixture
def search(store_name, matching, photos):
    """An index of the pictures, in a store of either kind."""
    with contextlib.closing(PictureSearch(store_name, matching)) as search:
        search.index(photos)
        yield search


@pytest.fixture
def lance(lance_name, matching, photos):
    """An index of the pictures in LanceDB."""
    search = PictureSearch(lance_name, matching)
    search.index(photos)
    return search
