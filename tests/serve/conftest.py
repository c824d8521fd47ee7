"""Fixtures: one server for this folder, and the same tasks offline."""

import pytest
from drawn_photos import draw
from served import ASKING
from served import FUSED
from served import KEY
from served import MATCHING

import keras_bridgetower as kbt


@pytest.fixture(scope="session")
def presets():
    pytest.importorskip("uvicorn", reason="the extra `serve`")
    from keras_bridgetower.apps.serve.models import ServedPreset

    opened = [ServedPreset(name) for name in (FUSED, MATCHING, ASKING)]
    return opened


@pytest.fixture(scope="session")
def offline():
    return {
        "embed": kbt.BridgeTowerContrastive.from_preset(FUSED),
        "match": kbt.BridgeTowerRetrieval.from_preset(MATCHING),
        "fill": kbt.BridgeTowerMaskedLM.from_preset(MATCHING),
        "answer": kbt.BridgeTowerVQA.from_preset(ASKING),
    }


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("serve") / "photos")


@pytest.fixture(scope="session")
def index(presets, photos):
    pytest.importorskip("lancedb", reason="the extra `search`")
    from keras_bridgetower.apps.serve.models import ServedIndex

    store = str(photos.parent / "index")
    tasks = [presets[1].tasks[name] for name in ("embed", "score")]
    models = kbt.search.SearchModels(*tasks, MATCHING)
    kbt.search.PictureSearch(store, models).index(photos)
    return ServedIndex(store, presets[1])


@pytest.fixture(scope="session")
def server(presets, index, photos):
    from local_server import serving

    from keras_bridgetower.apps.serve.plan import Limits
    from keras_bridgetower.apps.serve.plan import Plan

    limits = Limits(body_bytes=12_000_000, inputs=64, picture_pixels=10**6)
    store = str(photos.parent / "index")
    plan = Plan((FUSED, MATCHING, ASKING), limits, store=store)
    with serving(plan, presets, index, KEY) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    httpx = pytest.importorskip("httpx", reason="comes with the tests")
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(
        base_url=server.url, headers=headers, timeout=60
    ) as client:
        yield client
