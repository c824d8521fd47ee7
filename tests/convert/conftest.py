"""A cache of conversions for each test, and folders to be copied."""

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def three_heads(tmp_path_factory):
    """A folder of transformers with three heads, and its models."""
    import checkpoints  # Later than the frameworks.

    path = tmp_path_factory.mktemp("theirs") / "model"
    models = checkpoints.with_all_heads(path)
    return path, models
