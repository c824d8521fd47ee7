"""Commands that run presets from the cache, without Keras."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import every_task
import exported_files
import numpy as np
import pytest
from builders import FASTEST
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower import startup
from keras_bridgetower.apps import exported
from keras_bridgetower.apps.cli.main import main
from keras_bridgetower.presets.table import PRESETS

ROOT = pathlib.Path(__file__).parents[2]
VQA, EMOJI = "bridgetower_tiny_easy_vqa", "bridgetower_tiny_emoji_"
WEIGHTS = ("model.weights.h5", "task.weights.h5")
PICTURES = [str(p) for p in sorted(ROOT.glob("examples/drawings/*.png"))]
QUESTION, TEXTS = "what color is it?", ["a penguin", "a red circle"]
POPEN = subprocess.Popen
PATH = [str(ROOT), os.environ.get("PYTHONPATH", "")]
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
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PATH)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return found.stdout, found.stderr


@pytest.mark.parametrize(
    "own", [False, pytest.param(True, marks=pytest.mark.slow)]
)
@FASTEST
@pytest.mark.usefixtures("no_records_of_traces")
@pytest.mark.filterwarnings("ignore")
def test_answers_import_no_keras(own, cache, capsys):
    pytest.importorskip("onnxruntime")
    preset = VQA
    if own:
        exported_files.need("onnx")
        preset = str(shutil.copytree(PRESETS[VQA].path, cache / "preset"))
        assert exported.available(preset, "vqa") is None
        # As a command starts it.
        export = subprocess_of("", "-m", exported.__name__, preset, "vqa")
        export.communicate(timeout=300)
        assert export.returncode == 0
    ask = ("ask", PICTURES[0], QUESTION, "--preset", preset, "--top-k", "2")
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


@FASTEST
def test_other_requests_without_keras(cache):
    """Files that are no picture, and what Keras must answer or refuse."""
    pytest.importorskip("onnxruntime")
    quick = exported.available(f"{EMOJI}retrieval", "retrieval")
    found = quick.match_files([*PICTURES[:3], __file__], TEXTS[0], 2)
    expected = quick.score(PICTURES[:3], TEXTS[0])
    np.testing.assert_allclose(found[:-1], expected, atol=1e-5)
    assert "test_exported.py" in str(found[-1])
    quick = exported.available(f"{EMOJI}contrastive", "embed_images")
    with pytest.raises(exported.Refused, match="Pairs"):
        quick.embed(PICTURES[:1], TEXTS[:1])
    with pytest.raises(exported.Refused, match="too long"):
        quick.embed(texts=["red " * 600])


@FASTEST
def test_a_damaged_shipped_export_is_not_used(cache, monkeypatch):
    pytest.importorskip("onnxruntime")
    expected = kbt.BridgeTowerVQA.from_preset(VQA).answer(PICTURES[0], QUESTION)
    store, site = cache / "store", cache / "site"
    for name in (VQA, f"exported/{VQA}"):
        shutil.copytree(f"{PRESETS[VQA].root}/{name}", store / name)
    # Some installers make links.
    shutil.copytree(store, site, copy_function=os.symlink)
    preset = dataclasses.replace(PRESETS[VQA], root=str(site))
    monkeypatch.setitem(PRESETS, VQA, preset)
    quick = exported.available(VQA, "vqa")
    [[answer]] = quick.answer(PICTURES[:1], [QUESTION])
    assert answer[0] == expected[0][0]
    (store / VQA / "README.md").write_text("Another page.")
    assert exported.available(VQA, "vqa")
    for name in (
        f"exported/{VQA}/{MODEL}",
        f"exported/{VQA}/model/export.json",
        f"exported/{VQA}/{SUMS}",
        *(f"{VQA}/{file}" for file in ("heads.json", *WEIGHTS)),
    ):
        content = (store / name).read_bytes()
        flip(store / name, -100, 0)
        assert exported.available(VQA, "vqa") is None, name
        (store / name).write_bytes(content)
        assert exported.available(VQA, "vqa")


@FASTEST
def test_where_commands_use_what_was_exported(cache, monkeypatch):
    folder = cache / "preset"
    shutil.copytree(kbt.BridgeTowerVQA.presets[VQA].path, folder)
    place = exported.CachedExport(str(folder), "vqa")
    assert place.is_possible() and not place.is_there()
    place.folder.mkdir(parents=True)
    identity = place.folder / exported.files.MANIFEST
    identity.write_text(json.dumps([place.identity(), {}]))
    assert place.is_there()
    # Another preset in the same folder, or another version of its files.
    assert not exported.CachedExport(str(folder), "retrieval").is_there()
    (folder / "task.json").touch()
    assert place.is_there()
    (folder / "task.json").write_text("{}")
    assert not place.is_there()
    assert not exported.CachedExport("hf://user/model", "vqa").is_possible()
    assert not exported.CachedExport(str(folder), "entailment").is_possible()
    for name, value in ((startup.OWN_MODULES, "mine"), (exported.SWITCH, "0")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not place.is_possible()
    monkeypatch.setattr(exported, "LARGEST", 10)
    assert not place.is_possible()


SAVED = ("model.weights.h5", "heads.json", "assets/tokenizer/merges.txt")
# Files of a model, by the kind of its folder.
FILES = {
    "sealed": SAVED,
    "without manifest": SAVED,
    "foreign": ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"),
}


@FASTEST
@pytest.mark.parametrize("kind", FILES)
def test_other_folders_beside_a_model_are_not_walked(kind, cache):
    folder = cache / "folder"
    if kind == "foreign":
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "bridgetower"}')
        for name in FILES[kind]:
            (folder / name).touch()
    else:
        shutil.copytree(PRESETS[VQA].path, folder)
    if kind == "without manifest":
        (folder / "manifest.json").unlink()
    place = exported.CachedExport(str(folder), "vqa")
    before = place.identity()
    for name in ("config.json", *FILES[kind]):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert place.identity() != before
        path.write_bytes(content)
    before = place.identity()
    (folder / "pictures" / "many").mkdir(parents=True)
    (folder / "pictures" / "many" / "a.png").touch()
    assert place.identity() == before


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def as_folder(path):
    path.unlink()
    path.mkdir()


MODEL, SUMS = "model/model.onnx", exported.files.MANIFEST
# What may happen to a file or folder of the cache.
DAMAGES = {
    "a bit of a weight": (MODEL, lambda x: flip(x, -1000, 6)),
    "a bit of a name": ("model/preprocessor.json", lambda x: flip(x, 20, 0)),
    "a cut model": (MODEL, lambda x: os.truncate(x, 9000)),
    "an empty model": (MODEL, lambda x: os.truncate(x, 0)),
    "no model": ("model", shutil.rmtree),
    "no tokenizer": ("model/assets", shutil.rmtree),
    "two models": (MODEL, lambda x: shutil.copy(x, x.with_name("b.onnx"))),
    "no manifest": (SUMS, os.unlink),
    "a folder": (SUMS, as_folder),
} | {
    f"manifest {text!r}": (SUMS, lambda x, text=text: x.write_bytes(text))
    for text in (b"", b"{}", b"1", b"null", b"[1, 2]", b"[[]", b"\0", b"\xff")
}


@exported_files.ON_TORCH
@pytest.mark.usefixtures("no_records_of_traces")
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_export_is_replaced(cache, run, monkeypatch):
    exported_files.need("onnx")
    preset = str(cache / "preset")
    randomise(every_task.make("vqa")).save_to_preset(preset)
    ask = ("ask", PICTURES[0], QUESTION, "--preset", preset, "--json")
    expected = run(*ask).out
    place = exported.CachedExport(preset, "vqa")
    # Of a process that was killed.
    left = exported.folder() / f".{place.folder.name}.x" / place.folder.name
    left.mkdir(parents=True)
    exported.write(preset, "vqa")
    found = {path.name for path in exported.folder().iterdir()}
    assert found == {"export.lock", place.folder.name}
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    assert exported.available(preset, "vqa")
    intact = cache / "intact"
    place.folder.rename(intact)
    for number, (name, (file, damage)) in enumerate(DAMAGES.items(), 1):
        shutil.rmtree(place.folder, ignore_errors=True)
        shutil.copytree(intact, place.folder)
        damage(place.folder / file)
        assert exported.available(preset, "vqa") is None, name
        # Keras answers, and the preset is exported again.
        place.tried.write_bytes(b"")
        assert "is being exported" in exported.prepare(preset, "vqa")
        assert len(started) == number
    found = run(*ask)
    assert (found.out, "has not ended" in found.err) == (expected, True)
    # An intact file that the runtime cannot open.
    onnx = place.folder / MODEL
    shutil.rmtree(place.folder)
    shutil.copytree(intact, place.folder)
    onnx.write_bytes(b"from a newer version")
    sums = exported.files.folder_sums(place.folder)
    (place.folder / exported.files.MANIFEST).write_text(
        json.dumps([place.identity(), sums])
    )
    assert run(*ask) == (expected, "")


@pytest.fixture
def started(cache, monkeypatch):
    """The commands of the processes that would export a preset."""
    found = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: found.append(a))
    monkeypatch.setattr(exported, "RUNS", ())
    monkeypatch.setattr(exported, "WRITES", ())
    return found


@FASTEST
def test_one_process_exports(cache, started, monkeypatch):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        said = [*pool.map(exported.prepare, [VQA] * 20, ["vqa"] * 20)]
    assert len(started) == 1
    assert sum("minutes" in one for one in said) == 1
    # It was killed.
    place = exported.CachedExport(VQA, "vqa")
    assert "has not ended" in exported.prepare(VQA, "vqa")
    assert len(started) == 1
    day = 24 * 3600
    os.utime(place.tried, (0, time.time() - 1.01 * day))
    assert "minutes" in exported.prepare(VQA, "vqa")
    assert len(started) == 2
    # Another one runs.
    code = f"""
import filelock, sys
with filelock.FileLock({str(exported.folder() / "export.lock")!r}):
    print(flush=True)
    sys.stdin.read()
"""
    with subprocess_of(code) as other:
        other.stdout.readline()
        assert "Another process is" in exported.prepare(VQA, "retrieval")
        found = subprocess_of("", "-m", exported.__name__, VQA, "vqa")
        _, err = found.communicate(timeout=60)
        # Before anything that takes memory was imported.
        assert found.returncode == 1
        assert "ValueError: Another process is exporting" in err
        for heavy in ("keras", "tensorflow", "torch"):
            assert f"| {heavy}\n" not in err
        other.communicate("")
    assert len(started) == 2


def subprocess_of(code, *words):
    words = words or ("-c", code)
    return POPEN(
        [sys.executable, "-X", "importtime", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@FASTEST
def test_no_export_is_started_in_vain(cache, started, monkeypatch, run):
    def said(preset=VQA, verb="vqa"):
        found = exported.prepare(preset, verb)
        assert not started
        return found

    # What a command says last.
    monkeypatch.setattr(exported, "WRITES", ("keras", "nowhere"))
    own = PRESETS[VQA].path
    answer = run("ask", PICTURES[0], QUESTION, "--preset", own)
    assert answer.err.splitlines()[-1] == said(str(own))
    assert "needs nowhere: in a clone, `pip install" in said()
    monkeypatch.setattr(exported, "WRITES", ())
    assert "`keras-bridgetower serve hf://u/m`" in said("hf://u/m")
    assert "loads it once" in said("bridgetower_tiny_easy_mlm", "mlm")
    with monkeypatch.context() as patch:
        patch.setattr(exported, "FREE", 1e15)
        assert "4 GB of memory must be free" in said()
        patch.setenv(exported.SWITCH, "0")
        assert said() is None
    # A cache that nobody can write.
    exported.folder().write_bytes(b"")
    for _ in range(2):
        assert "is not exported now: [Errno" in said()


@FASTEST
def test_free_memory(tmp_path):
    psutil = pytest.importorskip("psutil")
    expected = psutil.virtual_memory().available
    assert abs(exported._free_memory() / expected - 1) < 0.5
    assert exported._free_memory(tmp_path) == float("inf")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    lines = "MemTotal:  9000000 kB\nMemAvailable:    8000000 kB\n"
    (tmp_path / "proc/meminfo").write_text(lines)
    (group / "memory.stat").write_text("anon 500\nfile 9\nfile_anon 3\n")
    for limit, free in (("max", 8_192_000_000), ("2000", 1500)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert exported._free_memory(tmp_path) == free
