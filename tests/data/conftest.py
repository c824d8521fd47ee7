"""The scenes of easy-VQA, measured once for all tests of this folder."""

import pytest
from easy_world import scenes as easy_vqa_scenes


@pytest.fixture(scope="session")
def scenes():
    pytest.importorskip("easy_vqa")
    names = easy_vqa_scenes.SPLITS
    return {split: easy_vqa_scenes.load_scenes(split) for split in names}
