"""A small preset with all that a folder may hold, and copies of it."""

import shutil

import numpy as np
import pytest
from builders import one_layer_each
from builders import randomise
from builders import vqa


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A task and its preset; no test changes them."""
    folder = tmp_path_factory.mktemp("presets") / "vqa"
    model = randomise(vqa(**one_layer_each()))
    model.backbone.extra = {"unread": np.ones(3, "float32")}
    model.save_to_preset(folder)
    return model, folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved[1], tmp_path / "preset")


@pytest.fixture
def bare(copied):
    """A copy without a manifest."""
    (copied / "manifest.json").unlink()
    return copied
