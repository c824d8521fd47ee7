"""The training step compiles for TPUs, by the TPU compiler, without a TPU."""

import json
import subprocess
import sys

import keras
import pytest
from builders import FASTEST

from keras_bridgetower.training import compiled
from keras_bridgetower.training import recipes

# Minutes: libtpu compiles a whole step, with two cores.
pytestmark = pytest.mark.slow
RECIPES = ("pretrain_base", "vqa_base", "snli_ve_base", "nlvr2_base")
RECIPES += ("flickr30k_ranking_base", "flickr30k_base")
PARAMETERS = 1_727_804
# Bytes that a step may send for each weight: its gradient in bfloat16, with
# `fsdp` the weight too, and some pictures that matching draws from the next
# device. Model parallelism sends activations.
SENDS = {"data_parallel": 5, "fsdp": 5, "model_parallel": None}


@FASTEST
@pytest.mark.parametrize("kind", SENDS)
def test_a_step_compiles_for_a_tpu(kind):
    pytest.importorskip("libtpu", reason="the extra `tpu`")
    words = ["plan", "pretrain_base", "--compile", "v5e:2x2", "--json"]
    words += ["--distribute", kind, "-s", "dtype=mixed_bfloat16"]
    for change in ("size=tiny", "batch_size=32", "accumulation=1"):
        words += ["-s", change]
    run = subprocess.run(
        [sys.executable, "-m", "keras_bridgetower", *words],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["warnings"] == [] and found["peak"] < found["memory"]
    sent = sum(size for name, size in found.items() if "-" in name)
    assert 2 * PARAMETERS < sent
    assert SENDS[kind] is None or sent < SENDS[kind] * PARAMETERS


@pytest.mark.skipif(keras.config.backend() != "jax", reason="traced by JAX")
@pytest.mark.parametrize("name", RECIPES)
def test_the_step_of_each_task_is_traced(name):
    """With features and labels as its preprocessor would make them."""
    import jax

    recipe = recipes.get(name).replace(
        size="tiny", batch_size=8, accumulation=1
    )
    lowered = compiled.lowered(recipe, jax.devices()[:1], "data_parallel")
    assert "tensor<8x" in lowered.as_text()
