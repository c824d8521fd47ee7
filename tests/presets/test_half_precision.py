"""Presets that store half precision load exactly, on every backend."""

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


@slow_on("tensorflow", "jax")
def test_loaded_weights_equal_stored_half_precision(saved, copied):
    task, folder = saved[0], copied
    half_precision.store_in_half(folder)
    for file in (weights_file.WEIGHTS, weights_file.TASK_WEIGHTS):
        types = weights_file.array_types(folder / file).values()
        # Position ids stay integers.
        assert {t.name for t in types if t.kind == "f"} == {"float16"}
    copy = kbt.BridgeTowerVQA.from_preset(folder)
    assert len(copy.weights) == len(task.weights)
    for new, old in zip(copy.weights, task.weights, strict=True):
        expected = array(old)
        assert array(new).dtype == expected.dtype
        if expected.dtype == np.float32:
            expected = expected.astype("float16").astype("float32")
        np.testing.assert_array_equal(array(new), expected, old.path)


@FASTEST
def test_a_weight_beyond_half_precision_is_refused(tmp_path):
    task = shallow()
    task.weights[0].assign(array(task.weights[0]) + 1e5)
    task.save_to_preset(tmp_path / "large")
    with pytest.raises(ValueError, match="within ±65504.*float32"):
        half_precision.store_in_half(tmp_path / "large")
    # The folder stays as it was.
    manifest.verify(tmp_path / "large").finish()
