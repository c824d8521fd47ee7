"""Run the docstring examples of search in a folder with pictures."""

import inspect
import re

import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import SearchModels
from keras_bridgetower.apps.search import info
from keras_bridgetower.apps.search import open_store
from keras_bridgetower.apps.search import prune
from keras_bridgetower.apps.search import remove

pytestmark = FASTEST
DOCUMENTED = (*(PictureSearch, SearchModels, info, remove, prune, open_store),)


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda d: d.__name__)
def test_docstring_example_runs(
    documented, matching, photos, monkeypatch, lance_name
):
    monkeypatch.chdir(photos.parent)
    (photos / "ellipse/red_0.png").rename(photos.parent / "photo.png")
    if documented in (info, remove, prune):
        PictureSearch("photos.index", matching).index("photos")
    if documented is open_store:
        pytest.importorskip("qdrant_client", reason="the extra `search`")
    (example,) = re.findall(
        r"```python\n(.*?)```", inspect.getdoc(documented), re.DOTALL
    )
    names = {name: getattr(kbt.search, name) for name in dir(kbt.search)}
    exec(example, names)
