"""`keras-bridgetower data`: from original files to a data set."""

import os

import pytest
import record_rows
from builders import FASTEST
from miniatures import miniature

from keras_bridgetower.data.records import write

pytest.importorskip("easy_vqa")
pytestmark = FASTEST


def test_bad_pictures_and_arguments_are_reported(run, tmp_path):
    originals = tmp_path / "originals"
    miniature("vqav2", originals)
    os.truncate(originals / "train2014/COCO_train2014_000000000002.jpg", 0)
    said = run("data", "check", "vqav2", originals, code=1)
    assert "missing or damaged" in said.out + said.err
    build = ("data", "build", "vqav2", originals, tmp_path / "set")
    build += ("--workers", 1)
    assert "1 of 12 records of split 'train'" in run(*build, code=1).err
    said = run(*build, "--max-bad-share", 0.1, "--splits", "train")
    assert "left out COCO_train2014_000000000002: a picture of 0" in said.out
    assert "train: 11 records" in said.out


def test_options_of_a_data_set(run, tmp_path):
    root, options = miniature("vgqa", tmp_path)
    check = ("data", "check", "vgqa", root)
    check += ("--set", f"coco={options['coco']}")
    assert "vgqa_train_no_val2014: good" in run(*check).out
    for changes in (("--set", "mincount=2"), ("--protocol", "theirs")):
        assert "Received" in run(*check, *changes, code=1).err


def test_beam_writes_the_same(tmp_path):
    pytest.importorskip("apache_beam")
    beam, here = (
        record_rows.write(tmp_path / name, run=run)
        for name, run in (("beam", write.on_beam("DirectRunner")), ("a", None))
    )
    assert beam == here
    names = [sorted(p.name for p in f.iterdir()) for f in tmp_path.iterdir()]
    assert names[0] == names[1]
