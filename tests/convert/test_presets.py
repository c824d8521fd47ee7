"""Presets: known names, handles, and what a manifest catches."""

import checkpoints
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import backbone
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower.presets import errors
from keras_bridgetower.presets import hub

pytestmark = LONG_ELSEWHERE


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


def test_errors_are_found_at_their_former_place():
    from keras_bridgetower.convert.errors import ConversionError

    assert ConversionError is errors.ConversionError


@FASTEST
def test_handles_open_foreign_and_own_folders(tmp_path, monkeypatch):
    model = checkpoints.theirs()
    model.save_pretrained(tmp_path / "theirs")
    own = randomise(backbone())
    own.save_to_preset(tmp_path / "own")
    for scheme in ("hf", "kaggle"):
        monkeypatch.setitem(
            hub.DOWNLOADS, scheme, lambda handle: str(tmp_path / handle)
        )
    opened = kbt.BridgeTowerBackbone.from_preset("hf://theirs")
    np.testing.assert_array_equal(
        checkpoints.array(opened.fusion.text_pooler.kernel),
        model.bridgetower.cross_modal_text_pooler.dense.weight.detach().T,
    )
    opened = kbt.BridgeTowerBackbone.from_preset("kaggle://own")
    assert opened.count_params() == own.count_params()


def test_published_presets_are_described():
    """Counts of transformers' classes less what nothing reads."""
    base = 326_347_008 - 590_592 - 3 * 768 + 768
    large = 864_514_048 - 1_049_600 - 3 * 1024 + 1024
    mlm = {768: 39_245_913, 1024: 52_573_273}
    counts = {
        "bridgetower_base": base,
        "bridgetower_base_itm_mlm": base + mlm[768] + 3_074,
        "bridgetower_large_itm_mlm": large + mlm[1024] + 4_098,
        "bridgetower_large_itm_mlm_gaudi": large + mlm[1024] + 4_098,
        "bridgetower_large_itm_mlm_itc": large
        + mlm[1024]
        + 4_098
        + (866_612_737 - 864_514_048),
    }
    for name, count in counts.items():
        preset = kbt.BridgeTowerVQA.presets[name]
        assert preset.parameters == count
        assert preset.handle.startswith("hf://BridgeTower/bridgetower-")
        assert preset.image_size == (288 if "base" in name else 294)
