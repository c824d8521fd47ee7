"""Mutants of a preset's files: the typed error, or the same weights."""

import collections
import shutil
import time
import warnings

import faults_run
import numpy as np
import pytest
from builders import FASTEST
from builders import array

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets.errors import PresetError

pytestmark = FASTEST
# What opens a file, where no backbone must be built for it.
READERS = {
    "tokenizer.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/vocabulary.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/merges.txt": kbt.BridgeTowerTokenizer,
    "image_converter.json": kbt.BridgeTowerImageConverter,
    "preprocessor.json": kbt.BridgeTowerVQAPreprocessor,
}


BYTES = (faults_run.flip_a_bit, faults_run.cut)
CHANGES = (faults_run.remove, faults_run.make_huge)


def mutate(folder, rng):
    """Change one file; its name."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = paths[rng.integers(len(paths))]
    json = path.suffix == ".json"
    faults = (*BYTES, *(map(faults_run.edit, CHANGES) if json else ()))
    faults[rng.integers(len(faults))](path, rng)
    return path.relative_to(folder).as_posix()


@pytest.mark.parametrize(
    "count", [20, pytest.param(2000, marks=pytest.mark.slow)]
)
def test_mutants_raise_the_typed_error_or_give_the_same(count, saved, tmp_path):
    model, source = saved
    refused = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        folder = tmp_path / f"{seed}"
        shutil.copytree(source, folder)
        (folder / manifest.MANIFEST).unlink()
        name = mutate(folder, rng)
        started = time.process_time()
        try:
            # Of new heads, missing parts, and no manifest.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy = READERS.get(name, kbt.BridgeTowerVQA).from_preset(folder)
        except PresetError as error:
            refused += 1
            assert "\x1b" not in str(error), (seed, name)  # noqa: PT017
        except ValueError as error:
            # Before the folder counts as a preset at all.
            expected = ("`preset` must be one of", "`answers` must be given")
            foreign = type(error).__name__ == "ConversionError"
            fits = foreign or str(error).startswith(expected)
            assert fits, (seed, name)  # noqa: PT017
            refused += 1
        except Exception as error:
            raise AssertionError((seed, name)) from error
        else:
            if name not in READERS:
                check_the_same(model, copy, (seed, name))
        assert time.process_time() - started < 20, (seed, name)
        shutil.rmtree(folder)
    assert refused > count / 4


def check_the_same(model, copy, where):
    """Weights that no file changed are those that were saved."""
    # Not by path or order: a mutant may name a layer anew, or freeze it.
    own, found = (
        collections.Counter(array(w).tobytes() for w in m.backbone.weights)
        for m in (model, copy)
    )
    assert where[1] == "model.weights.h5" or own == found, where
    for weight in copy.weights:
        assert np.isfinite(array(weight)).all(), where
