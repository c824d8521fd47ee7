"""`keras-bridgetower data`: from original files to a data set."""

import os
import sys

import numpy as np
import pytest
import record_rows
import streams
from builders import FASTEST
from miniatures import miniature
from PIL import Image

from keras_bridgetower.apps.cli import main
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write

pytest.importorskip("easy_vqa")
pytestmark = FASTEST


@pytest.fixture
def run(capsys):
    def run(*words, code=0):
        capsys.readouterr()
        assert main.main(["data", *map(str, words)]) == code
        printed = capsys.readouterr()
        # Messages of errors are wrapped to the width of a terminal.
        return (
            printed.out
            if code == 0
            else " ".join(f"{printed.out} {printed.err}".split())
        )

    return run


def test_check_build_stats_show(run, tmp_path):
    originals, folder = tmp_path / "originals", tmp_path / "set"
    miniature("nlvr2", originals)
    splits = "--splits", "train", "--splits", "validation"
    printed = run("check", "nlvr2", originals, *splits)
    assert "nlvr2_train: good" in printed and "6 records, 12" in printed
    assert "DIFFERS from the known - and 86,373" in printed
    build = "build", "nlvr2", "--workers", 1, *splits, originals, folder
    printed = run(*build, "--shards", 2, "--seed", 3)
    assert "The training pairs." in printed
    assert "task nlvr2, 2 labels" in printed
    assert "train: 6 records, 12 samples, 2 shards" in printed
    printed = run("stats", folder, "--verify")
    assert "nlvr2_dev: 6 samples" in printed and "DAMAGED" not in printed
    shard = folder / "train-00001-of-00002.tfrecord"
    stamp = shard.stat().st_mtime_ns
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    printed = run("stats", folder, "--verify", code=1)
    assert "1 shards are damaged; build again" in printed
    run(*build, "--shards", 2, "--seed", 3)
    assert shard.stat().st_mtime_ns != stamp
    assert "DAMAGED" not in run("stats", folder, "--verify")
    sheet = tmp_path / "sheet.png"
    printed = run("show", folder, "train", sheet, "--count", 8)
    assert "8 of 12 samples" in printed
    with Image.open(sheet) as opened:
        assert opened.size == (840, 588)
        pixels = np.asarray(opened)
    # Both pictures of a pair, side by side, and black letters below.
    for left in (5, 105):
        assert len(np.unique(pixels[60:150, left : left + 100])) > 5
    assert (pixels[205:280, :210] < 100).any()


def test_bad_pictures_and_arguments_are_reported(run, tmp_path):
    originals = tmp_path / "originals"
    miniature("vqav2", originals)
    os.truncate(originals / "train2014/COCO_train2014_000000000002.jpg", 0)
    printed = run("check", "vqav2", originals, code=1)
    assert "missing or damaged" in printed
    build = "build", "vqav2", originals, tmp_path / "set", "--workers", 1
    assert "1 of 12 records of split 'train'" in run(*build, code=1)
    printed = run(*build, "--max-bad-share", 0.1, "--splits", "train")
    assert "left out COCO_train2014_000000000002: a picture has 0" in printed
    assert "train: 11 records" in printed
    printed = run(*build, "--protocol", "theirs", code=1)
    assert "`protocol` must be one of" in printed
    printed = run("check", "coco", tmp_path / "absent", code=1)
    assert "folder of the data set must exist" in printed


def test_show_names_a_sample_with_a_bad_picture(run, tmp_path):
    sample = form.Sample("q7", "why?", (0,))
    row = form.Record("k", (b"<html>",), (sample,), "own")
    streams.write_unchecked(tmp_path / "set", [row], num_shards=1)
    printed = run(
        "show", tmp_path / "set", "train", tmp_path / "sheet.png", code=1
    )
    assert "picture of sample 'q7'` must be" in printed


def test_options_of_a_data_set(run, tmp_path):
    root, options = miniature("vgqa", tmp_path / "originals")
    ((key, value),) = options.items()
    printed = run("check", "vgqa", root, "--set", f"{key}={value}")
    assert "vgqa_train_no_val2014: good" in printed
    options = "--set", f"{key}={value}", "--set", "min_count=1"
    split = "--splits", "validation", "--workers", 1
    folder = tmp_path / "set"
    printed = run("build", "vgqa", root, *split, *options, folder)
    assert "validation: " in printed and "train: " not in printed
    for changes, message in (
        ((*options[:2], "--set", "min_count=two"), "int() with base 10: 'two'"),
        (("--set", "coco"), "--set must be KEY=VALUE. Received: 'coco'"),
        ((*options[:2], "--set", "mincount=2"), "options of 'vgqa' must be"),
    ):
        assert message in run("check", "vgqa", root, *changes, code=1)


def test_beam_writes_the_same(tmp_path):
    pytest.importorskip("apache_beam")
    beam, here = (
        record_rows.write(tmp_path / name, run=run)
        for name, run in (("beam", write.on_beam("DirectRunner")), ("a", None))
    )
    assert beam == here
    names = [sorted(p.name for p in f.iterdir()) for f in tmp_path.iterdir()]
    assert names[0] == names[1]


def test_beam_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"keras-bridgetower\[beam\]"):
        write.on_beam()
