"""Commands that run presets from the cache, without Keras."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import exported_files
import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower import startup
from keras_bridgetower.apps import exported
from keras_bridgetower.apps.cli.main import main
from keras_bridgetower.presets.table import PRESETS

ROOT = pathlib.Path(__file__).parents[2]
VQA = "bridgetower_tiny_easy_vqa"
PICTURES = [str(p) for p in sorted(ROOT.glob("examples/drawings/*.png"))]
QUESTION, TEXTS = "what color is it?", ["a penguin", "a red circle"]
# Runs a command, and then says what was imported.
CODE = """
import sys
sys.argv[0] = "keras-bridgetower"
from keras_bridgetower.apps.cli.main import main
from keras_bridgetower.presets.table import PRESETS
code = main()
heavy = {"keras", "tensorflow", "torch", "jax"} & set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv(exported.SWITCH)
    return tmp_path


def command(*words):
    found = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return found.stdout, found.stderr


@pytest.mark.slow
@exported_files.ON_TORCH
@pytest.mark.usefixtures("no_records_of_traces")
@pytest.mark.filterwarnings("ignore")
def test_the_second_answer_imports_no_keras(cache, capsys):
    exported_files.need("onnx")
    assert exported.available(VQA, "vqa") is None
    exported.write(VQA, "vqa")
    ask = ("ask", PICTURES[0], QUESTION, "--preset", VQA, "--top-k", "2")
    out, err = command(*ask, "--json")
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    wanted = vqa.answer(PICTURES[0], QUESTION, top_k=2)
    found = [(a["answer"], a["score"]) for a in json.loads(out)["answers"]]
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (_, score), (_, expected) in zip(found, wanted, strict=True):
        assert abs(score - expected) <= 1e-5
    assert err == "0 []\n"
    # Keras tells what is wrong.
    assert main(["ask", str(ROOT / "README.md"), *ask[2:]]) == 1
    assert "README.md" in capsys.readouterr().err


@pytest.mark.slow
@exported_files.ON_TORCH
@pytest.mark.filterwarnings("ignore")
def test_all_verbs_equal_those_of_keras(cache):
    preset = "bridgetower_tiny_emoji_retrieval"
    exported.write(preset, "retrieval")
    quick = exported.available(preset, "retrieval")
    task = kbt.BridgeTowerRetrieval.from_preset(preset)
    found = quick.score(PICTURES[0], TEXTS)
    np.testing.assert_allclose(found, task.score(PICTURES[0], TEXTS), atol=1e-5)
    found = quick.match_files([*PICTURES, __file__], TEXTS[0], 2)
    expected = task.score(PICTURES, TEXTS[0])
    np.testing.assert_allclose(found[:-1], expected, atol=1e-5)
    assert "test_exported.py" in str(found[-1])
    preset = "bridgetower_tiny_emoji_contrastive"
    exported.write(preset, "embed_images")
    quick = exported.available(preset, "embed_images")
    task = kbt.BridgeTowerContrastive.from_preset(preset)
    for given in ({"images": PICTURES}, {"texts": TEXTS}):
        found, wanted = quick.embed(**given), task.embed(**given)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(exported.Refused, match="Pairs"):
        quick.embed(PICTURES[:1], TEXTS[:1])
    with pytest.raises(exported.Refused, match="too long"):
        quick.embed(texts=["red " * 600])


@FASTEST
def test_where_commands_use_what_was_exported(cache, monkeypatch):
    folder = cache / "preset"
    shutil.copytree(kbt.BridgeTowerVQA.presets[VQA].path, folder)
    place = exported.Place(str(folder), "vqa")
    for package in exported.RUNS:
        pytest.importorskip(package)
    assert place.is_possible() and not place.is_there()
    place.folder.mkdir(parents=True)
    identity = place.folder / exported.IDENTITY
    identity.write_text(json.dumps(place.identity()))
    assert place.is_there()
    # Another preset in the same folder, or another version of its files.
    assert not exported.Place(str(folder), "retrieval").is_there()
    (folder / "task.json").touch()
    assert not place.is_there()
    place.note_failure()
    assert place.has_failed()
    assert not exported.start_writing(str(folder), "vqa")
    assert not exported.Place("hf://user/model", "vqa").is_possible()
    assert not exported.Place(str(folder), "entailment").is_possible()
    for name, value in ((startup.OWN_MODULES, "mine"), (exported.SWITCH, "0")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not place.is_possible()
    monkeypatch.setattr(exported, "LARGEST", 10)
    assert not place.is_possible()


@FASTEST
@pytest.mark.parametrize("kind", ["sealed", "without manifest", "foreign"])
def test_other_folders_beside_a_model_are_not_walked(kind, cache):
    folder = cache / "folder"
    if kind == "foreign":
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bridgetower"}')
        needed = [
            "model.safetensors",
            "tokenizer.json",
            "1_Pooling/config.json",
        ]
        (folder / "1_Pooling").mkdir()
        for name in needed:
            (folder / name).touch()
    else:
        shutil.copytree(PRESETS[VQA].path, folder)
        needed = [
            "model.weights.h5",
            "heads.json",
            "assets/tokenizer/merges.txt",
        ]
    if kind == "without manifest":
        (folder / "manifest.json").unlink()
    place = exported.Place(str(folder), "vqa")
    before = place.identity()
    for name in ("config.json", *needed):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert place.identity() != before
        path.write_bytes(content)
    before = place.identity()
    (folder / "pictures" / "many").mkdir(parents=True)
    (folder / "pictures" / "many" / "a.png").touch()
    assert place.identity() == before
