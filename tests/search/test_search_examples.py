"""Run the docstring examples of search in a folder with pictures."""

import inspect
import re

import pytest
from builders import FASTEST

import keras_bridgetower as kbt

# The first makes the index that the others open.
DOCUMENTED = (
    *("PictureSearch", "SearchModels", "info", "remove", "prune"),
    "open_store",
)


@FASTEST
def test_docstring_examples_run(photos, monkeypatch):
    for package in ("lancedb", "qdrant_client"):
        pytest.importorskip(package, reason="the extra `search`")
    monkeypatch.chdir(photos.parent)
    names = {name: getattr(kbt.search, name) for name in dir(kbt.search)}
    for name in DOCUMENTED:
        (example,) = re.findall(
            r"```python\n(.*?)```", inspect.getdoc(names[name]), re.DOTALL
        )
        exec(example, dict(names))
