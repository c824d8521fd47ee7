"""Presets that store half precision load exactly, on every backend."""

import json

import half_precision
import numpy as np
import pytest
from builders import FASTEST
from builders import array
from builders import shallow
from builders import slow_on

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file


def stored_types(folder, file):
    """The float types of a weight file, which holds position ids too."""
    places = weights_file.array_places(folder / file, folder).values()
    return {dtype for _, _, dtype in places if dtype[1] == "f"}


@pytest.mark.parametrize("index", [True, False])
@slow_on("tensorflow", "jax")
def test_loaded_weights_equal_stored_half_precision(index, saved, copied):
    task, folder = saved[0], copied
    assert stored_types(folder, weights_file.WEIGHTS) == {"<f4"}
    half_precision.store_in_half(folder)
    for file in (weights_file.WEIGHTS, weights_file.TASK_WEIGHTS):
        assert stored_types(folder, file) == {"<f2"}
    if not index:
        (folder / weights_file.INDEX).unlink()
        manifest.write(folder)
    copy = kbt.BridgeTowerVQA.from_preset(folder)
    assert len(copy.weights) == len(task.weights)
    for new, old in zip(copy.weights, task.weights, strict=True):
        expected = array(old)
        assert array(new).dtype == expected.dtype
        if expected.dtype == np.float32:
            expected = expected.astype("float16").astype("float32")
        np.testing.assert_array_equal(array(new), expected, old.path)


@FASTEST
def test_the_folder_keeps_its_index_and_its_sums(copied):
    folder = copied
    before = json.loads((folder / weights_file.INDEX).read_text())
    half_precision.store_in_half(folder)
    after = json.loads((folder / weights_file.INDEX).read_text())
    assert list(after) == list(before)
    assert [p[1:] for p in after.values()] == [
        [shape, dtype.replace("<f4", "<f2")]
        for _, shape, dtype in before.values()
    ]
    assert manifest.verify(folder) is not None


@FASTEST
def test_a_weight_beyond_half_precision_is_refused(tmp_path):
    task = shallow()
    task.weights[0].assign(array(task.weights[0]) + 1e5)
    task.save_to_preset(tmp_path / "large")
    with pytest.raises(ValueError, match="within ±65504.*float32"):
        half_precision.store_in_half(tmp_path / "large")
    # The folder stays as it was.
    manifest.verify(tmp_path / "large").finish()
