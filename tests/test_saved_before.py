"""Files that an earlier version saved open, and give the same numbers.

`saved_before/` was written on PyTorch by the version before the applications
moved, with random weights and the inputs of `builders.features`.
"""

import pathlib
import shutil

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import array
from builders import features
from builders import one_layer_each
from builders import raw
from builders import run
from builders import slow_on
from builders import some_everywhere
from builders import vqa

import keras_bridgetower as kbt

SAVED = pathlib.Path(__file__).parent / "saved_before"
EXPECTED = np.load(SAVED / "expected.npz")


def assert_close(found, name):
    """Of another backend's arithmetic, the outputs differ by rounding."""
    if isinstance(found, dict):
        for key, value in found.items():
            assert_close(value, f"{name}/{key}")
    else:
        np.testing.assert_allclose(found, EXPECTED[name], atol=2e-5)


@slow_on("jax")
@pytest.mark.parametrize(
    "name", some_everywhere(["backbone", "vqa", "contrastive"], "vqa")
)
def test_a_saved_model_gives_the_same_outputs(name):
    model = keras.saving.load_model(SAVED / f"{name}.keras")
    assert_close(run(model, features()), name)


@slow_on("jax")
def test_a_saved_retrieval_task_gives_the_same_scores():
    task = keras.saving.load_model(SAVED / "retrieval.keras")
    x, _ = raw()
    assert_close(task.match_logits(x["images"], x["text"]), "retrieval_scores")


def test_saved_weights_and_presets_give_the_same_outputs():
    task = vqa(**one_layer_each())
    task.load_weights(SAVED / "vqa.weights.h5")
    assert_close(run(task, features()), "vqa")
    task = kbt.BridgeTowerVQA.from_preset(str(SAVED / "vqa_preset"))
    assert_close(run(task, features()), "vqa")


@FASTEST
def test_a_run_continues_as_the_version_that_began_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent / "training")
    import resume_run

    shutil.copytree(SAVED / "run", tmp_path / "run")
    task = resume_run.task(kbt.training.AdamW(1e-2))
    kbt.Checkpoint(tmp_path / "run", resume_run.Rows(), every=2).fit(
        task, 4, verbose=0
    )
    weights = sorted(task.weights, key=lambda w: w.path)
    found = np.concatenate([array(w).ravel() for w in weights])
    assert_close(found, "run_weights")
