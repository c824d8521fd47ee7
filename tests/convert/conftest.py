"""A folder that several tests of conversions copy."""

import pytest


@pytest.fixture(scope="session")
def three_heads(tmp_path_factory):
    """A folder of transformers with three heads, and its models."""
    import checkpoints  # Later than the frameworks.

    path = tmp_path_factory.mktemp("theirs") / "model"
    models = checkpoints.with_all_heads(path)
    return path, models
