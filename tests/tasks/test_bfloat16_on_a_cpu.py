"""In bfloat16 no backend is slower than in float32 without a word."""

import warnings

import keras
import pytest

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_vqa"


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16", "float32"])
def test_jax_says_where_it_is_slow(dtype):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        vqa = kbt.BridgeTowerVQA.from_preset(PRESET, dtype=dtype)
    slow = [w for w in told if "more slowly than float32" in str(w.message)]
    on_jax = keras.config.backend() == "jax"
    assert bool(slow) == (on_jax and dtype != "float32")
    # The others compute it with the processor's units, without XLA.
    assert vqa.jit_compile == on_jax
