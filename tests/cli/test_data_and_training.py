"""Commands for data sets and training, and what they say in JSON."""

import dataclasses
import json
import re

import numpy as np
import pytest
import streams
from builders import FASTEST
from miniatures import miniature

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import weights
from keras_bridgetower.data.records.write import write_shards

pytestmark = FASTEST
PRESET = "bridgetower_tiny_easy_vqa"


def test_check_build_stats(run, tmp_path):
    pytest.importorskip("easy_vqa")
    originals, folder = tmp_path / "originals", tmp_path / "set"
    miniature("nlvr2", originals)
    splits = ("--splits", "train", "--splits", "validation")
    found = run("data", "check", "nlvr2", originals, *splits, "--json").out
    found = json.loads(found)
    assert found["good"] is True
    by_part = {part["part"]: part for part in found["parts"]}
    assert by_part["nlvr2_train"]["samples"] == 12
    said = run("data", "check", "nlvr2", tmp_path, code=1)
    assert "NOT GOOD" in said.out and said.err == ""

    build = ("data", "build", "nlvr2", originals, folder, *splits)
    built = json.loads(run(*build, "--workers", 1, "--json").out)
    assert built["splits"]["train"]["samples"] == 12
    assert built["left_out"] == []
    found = json.loads(run("data", "stats", folder, "--verify", "--json").out)
    assert found["splits"] == built["splits"] and found["damaged"] == []
    plain = run("data", "stats", folder).out
    assert "train: 6 records, 12 samples" in plain

    [shard, *_] = sorted(folder.glob("train-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    said = run("data", "stats", folder, "--verify", code=1)
    assert "DAMAGED" in said.out and "build again" in said.err


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Questions whose right answers the preset gives in half of all cases."""
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    made = []
    for number in range(6):
        record = streams.record("vqa", number, samples=2)
        samples = []
        for place, sample in enumerate(record.samples):
            text = f"what color is the shape {number} {place}?"
            [(best, _)] = vqa.answer(record.images[0], text)
            # Each second label is another one.
            label = (vqa.answers.index(best) + place) % len(vqa.answers)
            changes = {"text": text, "labels": (label,), "scores": (1.0,)}
            samples.append(dataclasses.replace(sample, **changes))
        made.append(dataclasses.replace(record, samples=tuple(samples)))
    folder = tmp_path_factory.mktemp("records")
    told = {"task": "vqa", "labels": list(vqa.answers), "definition": "made"}
    for split in ("train", "validation"):
        write_shards(folder, split, made, **told)
    # Beside it, more for training, and a test without labels.
    bare = [
        dataclasses.replace(
            record,
            samples=tuple(
                dataclasses.replace(sample, labels=(), scores=())
                for sample in record.samples
            ),
        )
        for record in made
    ]
    for split, rows in (("train", made), ("test", bare)):
        write_shards(folder.with_name("more"), split, rows, **told)
    return folder


def test_evaluate(run, records):
    """By the labels that were made, half of the answers are right."""
    words = ("evaluate", PRESET, records)
    found = json.loads(run(*words, "--json").out)
    assert found["scores"] == {"validation": {"vqa_score": 50.0}}
    plain = run(*words, "--split", "train").out
    assert plain == "train\tvqa_score\t50.00000\n"
    said = run(*words, "--recipe", "nlvr2_base", code=1)
    assert "must be of the records' task, 'vqa'" in said.err


@pytest.mark.usefixtures("store")
def test_train_then_evaluate(run, records):
    """The preset that a run saves has the scores that the run gave."""
    changes = ("steps=2", "batch_size=4", "image_size=64", "text_length=16")
    words = ("train", "vqa_base", "--data", records, "--init", PRESET)
    words += ("--output", "memory://trained/runs", "--every", 1)
    words += ("--data", records.with_name("more"))
    for change in changes:
        words += ("--set", change)
    said = run(*words, "--json")
    found = json.loads(said.out)
    # The recipe and the like are for a reader, and no JSON.
    assert "batch_size: 4   [paper: 512]" in said.err
    split = f"{records.name} validation"
    assert found["scores"].keys() == {split, "more test"}
    scores = found["scores"][split]
    assert found["scores"]["more test"] is None
    words_again = ("evaluate", found["preset"], records, "--json")
    again = json.loads(run(*words_again).out)["scores"]["validation"]
    assert again["vqa_score"] == pytest.approx(scores["vqa_score"], abs=1e-4)
    # Called again, nothing is trained, and the scores are told anew.
    said = run(*words)
    assert f"preset: {found['preset']}" in said.out
    assert "more test: its samples have no labels" in said.out + said.err
    # Trained further, it takes the place of the earlier preset: also after the
    # loss of one of two shards, if that is allowed.
    words += ("--set", "steps=3", "--force-resume")
    [shard] = records.with_name("more").glob("train-*.tfrecord")
    lost = shard.rename(shard.with_suffix(".lost"))
    try:
        said = run(*words, code=1)
        assert "1 of 1 shards are damaged; max_bad_share=0.001" in said.err
        said = run(*words, "--max-bad-share", 1)
        assert f"preset: {found['preset']}" in said.out
        assert "6 of 24 samples were left out" in said.out
    finally:
        lost.rename(shard)


def test_doctor(run):
    found = json.loads(run("doctor", "--json").out)
    assert found["version"] == kbt.__version__
    assert found["backend"]["name"] == "torch"
    assert found["devices"][-1] == "cpu" and found["problems"] == []
    assert PRESET in found["presets"]
    assert "bridgetower_base" not in found["presets"]
    lines = run("doctor").out.splitlines()
    assert all(line[0].isupper() or line[0] == "k" for line in lines)
    assert all(line.endswith(".") and "\t" not in line for line in lines)
    assert lines[0].startswith(f"keras_bridgetower {kbt.__version__} runs on")
    assert any("backend torch (" in line for line in lines)
    [cache] = [line for line in lines if "exported presets" in line]
    assert re.search(r" take [0-9,]+\.[0-9] MB in /", cache)
    assert "`keras-bridgetower ask" in lines[-1]


def test_doctor_ends_with_the_fix(run, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nowhere")
    last = run("doctor", code=1).out.splitlines()[-1]
    assert (
        "No model can run: nowhere: The backend nowhere is not installed"
        in last
    )
    assert "Set KERAS_BACKEND to one of" in last


def test_doctor_reads_markers_and_versions(tmp_path, monkeypatch):
    info = tmp_path / "wanted-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: wanted\nVersion: 1.0\n"
        "Provides-Extra: x\nProvides-Extra: y\n"
        "Requires-Dist: nowhere-to-be-had>=2\n"
        "Requires-Dist: of-the-past; python_version < '3' and extra == 'x'\n"
        "Requires-Dist: keras>=3; extra == 'x'\n"
        "Requires-Dist: nowhere-to-be-had>=2; extra == 'x'\n"
        "Requires-Dist: numpy>=999; extra == 'y'\n"
        "Provides-Extra: demo\nProvides-Extra: z\n"
        "Requires-Dist: chips[fast]; extra == 'z'\n"
    )
    chips = tmp_path / "chips-1.0.dist-info"
    chips.mkdir()
    (chips / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: chips\nVersion: 1.0\n"
        "Provides-Extra: fast\nProvides-Extra: slow\n"
        "Requires-Dist: libchip; extra == 'fast'\n"
        "Requires-Dist: keras; extra == 'fast'\n"
        "Requires-Dist: libslow; extra == 'slow'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(weights, "DISTRIBUTION", "wanted")
    version = weights.installed_version
    monkeypatch.setattr(
        *(weights, "installed_version"),
        lambda name: None if name == "gradio" else version(name),
    )
    assert weights.extras() == {
        "x": ["nowhere-to-be-had"],
        "y": [f"numpy>=999 (found {np.__version__})"],
        # Of the extra of a requirement, as `jax[tpu]` has `libtpu`.
        "z": ["libchip"],
        # No metadata can have it.
        "demo": ["gradio"],
    }
