"""Presets' weight files: the index, and loading without it."""

import json

import keras
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import difference
from builders import long_but
from builders import randomise
from builders import vit

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file

pytestmark = LONG_ELSEWHERE


def saved(tmp_path, **kwargs):
    model = randomise(backbone(**kwargs))
    model.save_to_preset(tmp_path / "preset")
    return model, tmp_path / "preset"


def same(model, copy):
    assert len(model.weights) == len(copy.weights)
    for a, b in zip(model.weights, copy.weights, strict=True):
        assert difference(array(a), array(b)) == 0, a.path


@pytest.mark.parametrize("image_encoder", long_but([None, vit], vit))
def test_the_index_names_every_variable(image_encoder, tmp_path):
    made = {} if image_encoder is None else {"image_encoder": image_encoder()}
    model, folder = saved(tmp_path, **made)
    index = json.loads((folder / weights_file.INDEX).read_text())
    assert len(index) == len(model.weights)
    copy = kbt.BridgeTowerBackbone.from_preset(folder)
    same(model, copy)
    # Saved and loaded, a CLIP's layers have other names: once more.
    copy.save_to_preset(tmp_path / "again")
    again = json.loads((tmp_path / "again" / weights_file.INDEX).read_text())
    assert set(again) == set(index)
    same(model, kbt.BridgeTowerBackbone.from_preset(tmp_path / "again"))


def test_a_preset_without_index_loads_too(tmp_path):
    model, folder = saved(tmp_path)
    (folder / weights_file.INDEX).unlink()
    manifest.write(folder)
    same(model, kbt.BridgeTowerBackbone.from_preset(folder))


def test_an_index_of_another_model_is_refused(tmp_path):
    _, folder = saved(tmp_path)
    index = json.loads((folder / weights_file.INDEX).read_text())
    index["odd"] = index.pop("fusion/type_embedding")
    (folder / weights_file.INDEX).write_text(json.dumps(index))
    manifest.write(folder)
    with pytest.raises(ValueError, match="2 other names.*type_embedding"):
        kbt.BridgeTowerBackbone.from_preset(folder)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("change", long_but([-1, 0], 0))
def test_changed_large_file_is_named(index, change, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 1)
    _, folder = saved(tmp_path)
    if not index:
        (folder / weights_file.INDEX).unlink()
        manifest.write(folder)
    path = folder / weights_file.WEIGHTS
    content = bytearray(path.read_bytes())
    content[change] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.weights.h5 was changed"):
        kbt.BridgeTowerBackbone.from_preset(folder)


def test_loading_draws_no_random_numbers(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("random numbers were drawn for a loaded weight")

    for name in ("VarianceScaling", "RandomNormal", "TruncatedNormal"):
        cls = getattr(keras.initializers, name)
        monkeypatch.setattr(cls, "__call__", refuse)
    preset = "bridgetower_tiny_easy_vqa"
    kbt.BridgeTowerVQA.from_preset(preset)
    kbt.BridgeTowerBackbone.from_preset(preset, image_size=32)
    with pytest.raises(ValueError, match="random numbers"):
        kbt.BridgeTowerVQA.from_preset(preset, answers=["yes", "no"])
