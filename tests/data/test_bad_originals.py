"""Bad original files: reported by `check`, rejected by readers."""

import json
import os
import pathlib
import time

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_json
from miniatures import miniature
from miniatures import opened

from keras_bridgetower.data.datasets.by_name import build_splits
from keras_bridgetower.data.datasets.by_name import open_dataset

pytestmark = ONE_BACKEND


def _edit(path, old, new, count=-1):
    """Return a function that edits a file below a root."""

    def damage(root):
        text = (root / path).read_bytes()
        assert old in text
        (root / path).write_bytes(text.replace(old, new, count))

    return damage


def _hole(path, start, gigabytes=20):
    """Replace a file by other bytes and a hole of many gigabytes."""

    def damage(root):
        (root / path).write_bytes(start)
        os.truncate(root / path, len(start) + gigabytes * 2**30)

    return damage


COCO = "karpathy/dataset_coco.json"
FLICKR = "karpathy/dataset_flickr30k.json"
QUESTIONS = "vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
FIRST_ID = b'"question_id": 0'
NLVR2 = "nlvr2/data/train.json"
SNLI = "snli_ve/snli_ve_train.jsonl"
CIFAR = "cifar-100-binary/train.bin"
# The data set, the damage, and what the error tells.
BAD = [
    ("coco", lambda root: os.truncate(root / COCO, 300), "coco.json must be J"),
    ("snli_ve", _edit(SNLI, b"is old", b"is \xff"), "UTF-8"),
    ("vqav2", _edit(QUESTIONS, b'"question":', b'"ask":'), "'question'"),
    ("vqav2", _edit(QUESTIONS, FIRST_ID, b'"question_id": 77777'), "77777"),
    ("nlvr2", _edit(NLVR2, b'"directory"', b'"folder"'), "'directory'"),
    ("nlvr2", _hole(NLVR2, b'{"a"\n', 0), "one JSON object a line.*line 1"),
    ("glue", _edit("RTE/train.tsv", b"\tent", b"\tdis"), "'disailment'"),
    ("cifar100", _hole(CIFAR, b"cut", 0), "with rows of 3074 bytes.*: 3 b"),
    ("nlvr2", _edit(NLVR2, b"{", b'{"sentence": 0, ', 1), "occurs twice"),
    ("coco", _hole(COCO, b"[" * 200_000, 0), "nested deeper than 100"),
    ("nlvr2", _hole(NLVR2, b'{"sentence": "\xff'), "NUL"),
    ("cifar100", _hole(CIFAR, b"\0"), "more than 500,000,000 bytes"),
]


@pytest.mark.parametrize("of, damage, message", BAD)
def test_bad_annotations_are_rejected(of, damage, message, tmp_path):
    data = opened(of, tmp_path)
    damage(tmp_path)
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        data.split("train")
    report = opened_again(of, tmp_path).check(splits=["train"])[0]
    assert not report.ok and report.error and "ERROR" in str(report)
    # A hole or a nesting could take much longer.
    assert time.process_time() - start < 5


def opened_again(name, folder, **options):
    if name == "glue":
        options["task_name"] = "rte"
    elif name == "vgqa":
        folder, options["coco"] = folder / "vg", folder / "coco"
    return open_dataset(name, folder, **options)


def test_bad_pictures_are_listed_and_may_be_left_out(tmp_path, run):
    """By `check`, the command of this name, and that which builds."""
    data = opened("flickr30k", tmp_path)
    folder = tmp_path / "flickr30k-images"
    os.truncate(folder / "1003.jpg", 0)
    (folder / "1004.jpg").unlink()
    (folder / "1005.jpg").unlink()
    (folder / "1005.jpg").mkdir()
    (folder / "1006.jpg").write_bytes(b"<html>gone</html>")
    report = data.check(splits=["train"])[0]
    names = [os.path.basename(picture.path) for picture, _ in report.bad]
    assert names == ["1003.jpg", "1004.jpg", "1005.jpg", "1006.jpg"]
    words = ("flickr30k", tmp_path)
    said = run("data", "check", *words, code=1)
    assert "missing or damaged" in said.out + said.err
    for told in ("NOT GOOD", "1003.jpg", "DIFFERS from the known 29,000 and -"):
        assert told in said.out
    build = ("data", "build", *words, tmp_path / "built", "--workers", 1)
    build += ("--splits", "train")
    assert "4 of 14 records of split 'train'" in run(*build, code=1).err
    said = run(*build, "--max-bad-share", 0.3).out
    assert "left out 1003.jpg: a picture of 0" in said
    assert "train: 10 records" in said


def test_options_of_a_data_set(run, tmp_path):
    root, options = miniature("vgqa", tmp_path)
    option = f"coco={options['coco']}"
    said = run("data", "check", "vgqa", root, "--set", option).out
    assert "vgqa_train_no_val2014: good" in said


def test_check_reports_the_errors_of_a_build(tmp_path):
    data = opened("cc3m_annot", tmp_path)
    rows = json.loads((tmp_path / "train_annot.json").read_text())
    write_json(tmp_path / "train_annot.json", [*rows, rows[0]])
    write_json(tmp_path / "val_annot.json", [])
    reports = data.check()
    assert not any(report.ok for report in reports)
    assert "ERROR    Every key must occur once" in str(reports[0])
    assert "ERROR    The split is empty" in str(reports[1])


def test_unknown_names_and_options_are_rejected(tmp_path):
    data, parts = open_dataset("coco", tmp_path), ["train", "dev"]
    for call, message in (
        (lambda: open_dataset("imagenet", tmp_path), "`name`"),
        (lambda: open_dataset("own", tmp_path / "none"), "`root`"),
        (lambda: open_dataset("coco", tmp_path, size=3), "'coco'.*'size'"),
        (lambda: open_dataset("vgqa", tmp_path), "--set.*'coco'"),
        (lambda: data.check(splits=["dev"]), "`name` .*'train'"),
        # Before the first of them is read.
        (lambda: build_splits(data, "a", "honest", parts), "`name` .*'train'"),
        (lambda: data.split("train", "a"), "`protocol`"),
        (lambda: data.check("a"), "`protocol`"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def _renamed(path, old, new):
    """Let an annotation name an existing picture elsewhere."""

    def damage(root):
        _edit(path, old, new, 1)(root)
        for place in (root.parent, root.parent / "flickr30k-images"):
            pictures()[0].save(place / "secret.jpg")

    return damage


def _linked(place):
    """Replace a file or folder by a link to its copy elsewhere."""

    def damage(root):
        there = root.parent / "elsewhere"
        (root / place).rename(there)
        (root / place).symlink_to(there)

    return damage


FIRST = b'"COCO_train2014_000000000000.jpg"'
# Names that the annotations have only in this test.
NAMED = [
    ("flickr30k", _renamed(FLICKR, b'"1000.jpg"', b'"../../secret.jpg"')),
    ("flickr30k", _renamed(FLICKR, b'"1000.jpg"', b'"/etc/hostname"')),
    ("coco", _renamed(COCO, FIRST, b'"COCO_.._/../secret.jpg"')),
    ("snli_ve", _renamed(SNLI, b'_ID": "0"', b'_ID": "../../secret"')),
]
OUTSIDE = b'"directory": "../../../..", "was": '
LEADING_OUT = [
    *NAMED,
    ("nlvr2", _renamed(NLVR2, b'"directory": ', OUTSIDE)),
    *(
        (name, _linked(place))
        for name, place in [
            ("coco", "train2014/COCO_train2014_000000000003.jpg"),
            ("coco", COCO),
            ("sbu", "SBU/3_7b.jpg"),
            ("cc3m", "train_image/1.png"),
            ("vqav2", "train2014"),
            ("visual_genome", "images/VG_100K"),
            ("snli_ve", SNLI),
            ("cifar10", "cifar-10-batches-bin/data_batch_1.bin"),
            ("glue", "RTE/train.tsv"),
            ("arrow_sbu", "sbu_0.arrow"),
            # Not of the split, but read for its classes.
            ("arrow_vqav2", "vqav2_val_fix_0.arrow"),
        ]
    ),
]


@pytest.mark.parametrize("of, damage", LEADING_OUT)
def test_paths_out_of_the_folder_are_rejected(
    of, damage, tmp_path, monkeypatch
):
    root = tmp_path / "root"
    data = opened(of, root)
    damage(root)
    message = "must be a path below its folder, and no link that leaves it"
    # A relative root, since paths are then relative to another folder.
    monkeypatch.chdir(tmp_path)
    for place in (root, "root"):
        data = opened_again(of, pathlib.Path(place))
        with pytest.raises(ValueError, match=message):
            data.split("train")
        report = data.check(splits=["train"])[0]
        assert message in report.error and not report.missing
    if (of, damage) not in NAMED:
        assert opened_again(of, root, outside="1").split("train")
