"""Mutants of a preset's files: the typed error, or the same weights."""

import collections
import json
import shutil
import time
import warnings

import numpy as np
import pytest
from builders import FASTEST
from builders import array

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets.errors import PresetError

pytestmark = FASTEST
# What a reader may come across in place of a value.
ODD = [None, True, -1, 0, 7, 2.5, 1e300, 10**40, "", "a\x1b[2J", "../a", [], {}]
# What opens a file, where no backbone must be built for it.
READERS = {
    "tokenizer.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/vocabulary.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/merges.txt": kbt.BridgeTowerTokenizer,
    "image_converter.json": kbt.BridgeTowerImageConverter,
    "preprocessor.json": kbt.BridgeTowerVQAPreprocessor,
}


def places(values, path=()):
    """Yield the place of each value in parsed JSON."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def mutate_json(values, rng):
    """Another value, no value, or another name, at one place."""
    found = list(places(values))
    *path, key = found[rng.integers(len(found))]
    for step in path:
        values = values[step]
    kind = rng.integers(4)
    if kind == 0:
        del values[key]
    elif kind == 1 and isinstance(values, dict):
        values[f"{key}x"] = values.pop(key)
    else:
        values[key] = ODD[rng.integers(len(ODD))]


def mutate_bytes(content, rng):
    """A bit, a part or the end of a file is another, or gone."""
    content = bytearray(content)
    at = int(rng.integers(len(content)))
    size = int(rng.integers(1, 64))
    kind = rng.integers(4)
    if kind == 0:
        content[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        del content[at : at + size]
    else:
        content[at : at + size] = rng.bytes(size)
    return bytes(content)


def mutate(folder, rng):
    """Change one file; its name."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = paths[rng.integers(len(paths))]
    content = path.read_bytes()
    if rng.integers(20) == 0:
        path.unlink()
    elif path.suffix == ".json" and rng.integers(3):
        values = json.loads(content)
        mutate_json(values, rng)
        path.write_text(json.dumps(values))
    else:
        path.write_bytes(mutate_bytes(content, rng))
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
