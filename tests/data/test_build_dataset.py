"""The tool: from original files to a data set, in its four verbs."""

import os
import sys

import build_dataset
import numpy as np
import pytest
import streams
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniatures import miniature
from PIL import Image

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.on_beam import on_beam

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        words = ["build_dataset.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        build_dataset.main()
        return capsys.readouterr().out

    return run


def test_four_verbs(run, tmp_path):
    originals, folder = tmp_path / "originals", tmp_path / "set"
    miniature("nlvr2", originals)
    splits = "--splits", "train", "--splits", "validation"
    printed = run("check", "nlvr2", originals, *splits)
    assert "nlvr2_train: good" in printed and "6 records, 12" in printed
    assert "DIFFERS from the known - and 86,373" in printed
    build = "build", "nlvr2", "--workers", 1, *splits, originals, folder
    printed = run(*build, "--shards", 2, "--seed", 3)
    assert "train: The training pairs." in printed
    assert "task nlvr2, 2 labels" in printed
    assert "train: 6 records, 12 samples, 2 shards" in printed
    printed = run("stats", folder, "--verify")
    assert "nlvr2_dev: 6 samples" in printed and "DAMAGED" not in printed
    shard = folder / "train-00001-of-00002.tfrecord"
    stamp = shard.stat().st_mtime_ns
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match="1 shards are damaged; build again"):
        run("stats", folder, "--verify")
    run(*build, "--shards", 2, "--seed", 3)
    assert shard.stat().st_mtime_ns != stamp
    assert "DAMAGED" not in run("stats", folder, "--verify")
    sheet = tmp_path / "sheet.png"
    assert "8 of 12 samples" in run(
        "show", folder, "train", sheet, "--count", 8
    )
    with Image.open(sheet) as opened:
        assert opened.size == (840, 588)
        shown = np.asarray(opened)
    # Both pictures of a pair, side by side, and black letters below.
    for left in (5, 105):
        assert len(np.unique(shown[60:150, left : left + 100])) > 5
    assert (shown[205:280, :210] < 100).any()


def test_what_is_wrong_ends_the_tool(run, tmp_path):
    originals = tmp_path / "originals"
    miniature("vqav2", originals)
    os.truncate(originals / "train2014/COCO_train2014_000000000002.jpg", 0)
    with pytest.raises(SystemExit, match="Not all is there"):
        run("check", "vqav2", originals)
    build = "build", "vqav2", originals, tmp_path / "set", "--workers", 1
    with pytest.raises(SystemExit, match="1 of 12 records of split 'train'"):
        run(*build)
    printed = run(*build, "--max-bad-share", 0.1, "--splits", "train")
    assert "left out COCO_train2014_000000000002: a picture has 0" in printed
    assert "train: 11 records" in printed
    with pytest.raises(SystemExit, match="--protocol must be one of"):
        run(*build, "--protocol", "theirs")
    with pytest.raises(SystemExit, match="folder of the data set must exist"):
        run("check", "coco", tmp_path / "absent")


def test_show_names_a_sample_that_it_cannot_draw(run, tmp_path):
    sample = form.Sample("q7", "why?", (0,))
    row = form.Record("k", (b"<html>",), (sample,), "own")
    streams.write_unchecked(tmp_path / "set", [row], num_shards=1)
    with pytest.raises(SystemExit, match="picture of sample 'q7'` must be"):
        run("show", tmp_path / "set", "train", tmp_path / "sheet.png")


def test_options_of_a_data_set(run, tmp_path):
    root, options = miniature("vgqa", tmp_path / "originals")
    ((key, value),) = options.items()
    printed = run("check", "vgqa", root, "--set", f"{key}={value}")
    assert "vgqa_train_no_val2014: good" in printed
    options = "--set", f"{key}={value}", "--set", "min_count=1"
    split = "--splits", "validation"
    folder = tmp_path / "set"
    printed = run("build", "vgqa", root, *split, *options, folder)
    assert "validation: " in printed and "train: " not in printed
    with pytest.raises(SystemExit, match="--set min_count must be.*two"):
        run("check", "vgqa", root, *options[:2], "--set", "min_count=two")
    with pytest.raises(SystemExit, match="--set must be KEY=VALUE.*'coco'"):
        run("check", "vgqa", root, "--set", "coco")
    with pytest.raises(SystemExit, match="options of 'vgqa' must be those"):
        run("check", "vgqa", root, *options[:2], "--set", "mincount=2")


def test_beam_writes_the_same(tmp_path):
    pytest.importorskip("apache_beam")
    rows = [
        form.Record(
            str(i), (shown.encoded(),), (form.Sample(str(i), "x"),), "own"
        )
        for i, shown in enumerate(pictures())
    ]
    options = dict(task="captions", definition="All of it.", num_shards=4)
    entries = [
        write.write_shards(folder, "train", rows, run=run, **options)
        for folder, run in (
            (tmp_path / "beam", on_beam("DirectRunner")),
            (tmp_path / "here", None),
        )
    ]
    assert entries[0] == entries[1]
    names = [sorted(p.name for p in f.iterdir()) for f in tmp_path.iterdir()]
    assert names[0] == names[1]


def test_beam_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match="extra `beam`"):
        on_beam()
