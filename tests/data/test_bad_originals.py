"""Bad original files: reported by `check`, rejected by readers."""

import json
import os
import pathlib
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_json
from miniature_pictures import write_lines
from miniatures import opened

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.datasets.cifar import read_pickle
from keras_bridgetower.data.records import write as writing

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND


def _edit(path, old, new, count=-1):
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, count))


def _json(path, value):
    return lambda root: write_json(root / path, value)


def _hole(path, start=b""):
    """Replace a file by a sparse one of 20 GB."""

    def damage(root):
        (root / path).write_bytes(start)
        os.truncate(root / path, 20 * 2**30)

    return damage


def _twice(path, key):
    """Repeat a key in the first object of a file."""
    return lambda root: _edit(root / path, b"{", b'{"%s": 0, ' % key, 1)


KARPATHY_FILE = "karpathy/dataset_coco.json"
QUESTIONS = "vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
FIRST_ID = b'"question_id": 0'
NLVR2 = "nlvr2/data/train.json"
SNLI = "snli_ve/snli_ve_train.jsonl"
SBU = "sbu-captions-all.json"
BAD = {
    "cut JSON": (
        "coco",
        lambda root: os.truncate(root / KARPATHY_FILE, 300),
        "dataset_coco.json must be JSON",
    ),
    "not UTF-8": (
        "snli_ve",
        lambda root: _edit(root / SNLI, b"is old", b"is \xff"),
        "train.jsonl must be UTF-8.*0xff in line 3",
    ),
    "no list": (
        "coco",
        _json(KARPATHY_FILE, {"pictures": []}),
        "a list under the key 'images'. Received: NoneType",
    ),
    "no key": (
        "vqav2",
        lambda root: _edit(root / QUESTIONS, b'"question":', b'"ask":'),
        "questions.json must have the key 'question' .* in row 0",
    ),
    "wrong type": (
        "vqav2",
        lambda root: _edit(root / QUESTIONS, FIRST_ID, b'"question_id": "0"'),
        "key 'question_id' with a value of type int. Received: '0' in row 0",
    ),
    "nested key": (
        "coco",
        lambda root: _edit(root / KARPATHY_FILE, b'"raw"', b'"text"'),
        "sentences of COCO_.* must have the key 'raw'",
    ),
    "COCO filename": (
        "coco",
        lambda root: _edit(
            root / KARPATHY_FILE,
            b'"COCO_train2014_000000000003.jpg"',
            b'"3.jpg"',
        ),
        "dataset_coco.json must be COCO_<folder>_<number>.jpg. Received: '3",
    ),
    "no annotation": (
        "vqav2",
        lambda root: _edit(root / QUESTIONS, FIRST_ID, b'"question_id": 77777'),
        "must be annotated. Received: question_id=77777",
    ),
    "gold label": (
        "snli_ve",
        lambda root: _edit(root / SNLI, b'"neutral"', b'"-"'),
        "gold_label of .* Received: '-' in row 3",
    ),
    "image key": (
        "snli_ve",
        lambda root: _edit(root / SNLI, b"Flickr30K_ID", b"image"),
        r"one of the keys \['Flickr30K_ID', 'Flikr30kID'\]",
    ),
    "NLVR2 label": (
        "nlvr2",
        lambda root: _edit(
            root / NLVR2,
            b'"label": "True"',
            b'"label": "yes"',
        ),
        "one of .*'False', 'True'.* Received: 'yes'",
    ),
    "NLVR2 directory": (
        "nlvr2",
        lambda root: _edit(root / NLVR2, b'"directory"', b'"folder"'),
        "must have the key 'directory'",
    ),
    "not JSON lines": (
        "nlvr2",
        lambda root: (root / NLVR2).write_text('{"a"\n'),
        "one JSON object a line.*line 1",
    ),
    "no tab": (
        "cc3m",
        lambda root: _edit(root / "utils/Train_GCC-training.tsv", b"\t", b" "),
        "must be a caption, a tab and a url. Received: row 1",
    ),
    "unequal lists": (
        "sbu",
        lambda root: _edit(
            root / "sbu-captions-all.json", b', "once more"', b""
        ),
        "Received: 25 captions, 26 image_urls",
    ),
    "GLUE label": (
        "glue",
        lambda root: _edit(root / "RTE/train.tsv", b"\tent", b"\tdis"),
        "Received: 'disailment' in row 1",
    ),
    "GLUE column": (
        "glue",
        lambda root: _edit(root / "RTE/train.tsv", b"sentence2", b"second"),
        "must have the key 'sentence2'",
    ),
    "CIFAR schema": (
        "cifar100",
        lambda root: (root / "cifar-100-python/train").write_bytes(
            pickle.dumps(
                {b"data": np.zeros((2, 5), "u1"), b"fine_labels": [1, 2]}, 2
            )
        ),
        r"b'data' of shape \(pictures, 3072\).*\(2, 5\)",
    ),
    "a key twice": ("coco", _twice(KARPATHY_FILE, b"images"), "occurs twice"),
    "a key twice within": (
        "coco",
        lambda root: _edit(
            root / KARPATHY_FILE, b'"raw"', b'"raw": "other", "raw"', 1
        ),
        "the key 'raw' occurs twice",
    ),
    "a question twice": ("vqav2", _twice(QUESTIONS, b"questions"), "twice"),
    "captions twice": ("sbu", _twice(SBU, b"captions"), "occurs twice"),
    "a sentence twice": ("nlvr2", _twice(NLVR2, b"sentence"), "occurs twice"),
    "a label twice": ("snli_ve", _twice(SNLI, b"gold_label"), "occurs twice"),
    "deep JSON": (
        "coco",
        lambda root: (root / KARPATHY_FILE).write_text("[" * 200_000),
        "nested deeper than 100",
    ),
    "a deep line": (
        "snli_ve",
        lambda root: (root / SNLI).write_text("[" * 101 + "]" * 101),
        "nested deeper than 100.*line 1",
    ),
    "a number in place of a list": (
        "sbu_annot",
        lambda root: (root / "annot.json").write_text("5"),
        "must hold a list",
    ),
    "a caption that is a list": (
        "sbu",
        lambda root: _edit(root / SBU, b'"once more"', b"[]"),
        "the key 'captions' with a value of type str",
    ),
    "a picture id that is a list": (
        "vgqa",
        lambda root: _edit(
            root / "vg/image_data.json", b'"coco_id": null', b'"coco_id": []'
        ),
        "the key 'coco_id'",
    ),
    "a hole": ("coco", _hole(KARPATHY_FILE), "NUL"),
    "a hole behind a start": ("sbu", _hole(SBU, b'{"captions": ["'), "NUL"),
    "a hole in lines": ("nlvr2", _hole(NLVR2, b'{"sentence": "\xff'), "NUL"),
    "a hole in a table": ("cc3m", _hole("train_image_exist.txt"), "NUL"),
    "a hole in a pickle": (
        "cifar100",
        _hole("cifar-100-python/train", b"\x80\x02"),
        "more than 500,000,000 bytes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_annotations_are_rejected(name, tmp_path):
    of, damage, message = BAD[name]
    data = opened(of, tmp_path)
    damage(tmp_path)
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        data.split("train")
    report = opened_again(of, tmp_path).check(splits=["train"])[0]
    assert not report.ok and report.error and "ERROR" in str(report)
    # A hole or a nesting could take much longer.
    assert time.process_time() - start < 5


def opened_again(name, folder):
    options = {
        "glue": {"task_name": "rte"},
        "vgqa": {"coco": folder / "coco"},
    }
    folder = folder / "vg" if name == "vgqa" else folder
    return open_dataset(name, folder, **options.get(name, {}))


def test_own_rows_of_several_tasks(tmp_path):
    row = {"image": "0.jpg", "text": "a shape"}
    rows = [row, row | {"answer": "red"}]
    write_lines(tmp_path / "train.jsonl", rows)
    with pytest.raises(ValueError, match="columns of one task.*train.jsonl"):
        open_dataset("own", tmp_path).split("train")
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(ValueError, match="must hold data, or train"):
        open_dataset("own", tmp_path)


def test_bad_pictures_are_listed_by_check(tmp_path):
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
    printed = str(report)
    assert "NOT GOOD" in printed and "1003.jpg" in printed
    assert "4 bad pictures in all" in printed
    assert "DIFFERS from the known 29,000 and -" in printed
    with pytest.raises(ValueError, match="4 of 14 records"):
        writing.write_shards(
            tmp_path / "built",
            "train",
            data.split("train"),
            task=data.task,
            definition="All of it.",
        )


def test_a_split_without_records_is_reported(tmp_path):
    data = opened("sbu", tmp_path)
    for picture in (tmp_path / "SBU").iterdir():
        picture.unlink()
    (report,) = data.check(splits=["train"])
    assert not report.ok
    assert "NOT GOOD" in str(report) and "EMPTY    no record" in str(report)


def test_check_reports_the_errors_of_a_build(tmp_path):
    data = opened("cc3m_annot", tmp_path)
    rows = json.loads((tmp_path / "train_annot.json").read_text())
    write_json(tmp_path / "train_annot.json", [*rows, rows[0]])
    name = os.path.basename(rows[0][0])
    train, validation = data.check()
    assert not train.ok and validation.ok
    assert "ERROR    Every key must occur once in a split. " in str(train)
    assert f"key={name!r} twice in split='train'" in str(train)
    assert f"counted  {len(rows) + 1} records" in str(train)


def test_missing_files_are_listed(tmp_path):
    data = opened("vqav2", tmp_path)
    os.remove(tmp_path / "vqav2/v2_mscoco_val2014_annotations.json")
    report = data.check(splits=["train"])[0]
    assert report.missing == [
        "vqav2/v2_mscoco_val2014_annotations.json or "
        "v2_mscoco_val2014_annotations.json"
    ]
    assert len(report.found) == 3
    with pytest.raises(ValueError, match="must hold vqav2/v2_mscoco_val2014"):
        data.split("train")


def test_unknown_names_and_options_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="`name` must be one of.*'coco'"):
        open_dataset("imagenet", tmp_path)
    with pytest.raises(ValueError, match="folder of the data set must exist"):
        open_dataset("coco", tmp_path / "absent")
    with pytest.raises(ValueError, match="options of 'coco'.*'size'"):
        open_dataset("coco", tmp_path, size=3)
    # Errors inside a reader are not about options.
    with pytest.raises(TypeError):
        open_dataset("coco", 3)
    with pytest.raises(ValueError, match="`task_name` must be one of"):
        open_dataset("glue", tmp_path, task_name="ax")
    with pytest.raises(ValueError, match="'wnli'.*--set task_name=rte"):
        open_dataset("glue", tmp_path)
    data = open_dataset("coco", tmp_path)
    with pytest.raises(ValueError, match="`protocol` must be one of"):
        data.split("train", "theirs")
    with pytest.raises(ValueError, match="`name` must be one of.*'train'"):
        data.split("dev")


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


@pytest.mark.parametrize(
    "stored", [Attack(), {b"data": Attack()}, [1], np.array([Attack()])]
)
def test_a_pickle_runs_no_code(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pickle"
    path.write_bytes(pickle.dumps(stored, protocol=2))
    with pytest.raises(ValueError, match="pickle must hold|is not allowed"):
        read_pickle(path)
    assert not (tmp_path / "attacked").exists()


class Fields:
    """A dtype of 8 bits with a field, which NumPy never writes."""

    def __reduce__(self):
        fields = {"a": (np.dtype("u1"), 9**9)}
        state = 3, "|", None, ("a",), fields, -1, -1, 0
        return np.dtype, ("u1", False, True), state


@pytest.mark.parametrize(
    "stored",
    [
        np.zeros(2, [("a", "u1"), ("b", "i8")]),
        *(np.zeros(2), np.zeros(2, "O"), np.zeros(2, "S1"), np.uint8(1)),
        Fields(),
    ],
)
def test_pickled_arrays_must_be_bytes(stored, tmp_path):
    path = tmp_path / "pickle"
    path.write_bytes(pickle.dumps({b"data": stored}, protocol=2))
    with pytest.raises(ValueError, match="is not allowed"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_any_protocol(protocol, tmp_path):
    path = tmp_path / "pickle"
    stored = {b"data": np.arange(6, dtype="uint8"), b"labels": [1, 2]}
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    found = read_pickle(path)
    assert found[b"labels"] == [1, 2]
    assert np.array_equal(found[b"data"], stored[b"data"])


def _shared(levels=60):
    """Return a list of a few bytes whose `repr` has 2**60 items."""
    built = []
    for _ in range(levels):
        built = [built, built]
    return built


def _dict_of(pushed):
    """Return a pickle of a dict with one item, from opcodes that push it."""
    return b"\x80\x02}" + pushed + b"s."


NESTED = b")" + b"2\x86" * 60  # A tuple, by DUP and TUPLE2.
TEXT = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6
ENCODE = b"c_codecs\nencode\n"
BOMBS = {
    "names": ("meta", pickle.dumps({b"fine_label_names": _shared()}, 2)),
    "labels": (
        "train",
        pickle.dumps(
            {b"data": np.zeros((1, 3072), "u1"), b"fine_labels": _shared()}, 2
        ),
    ),
    "a dtype": ("train", _dict_of(b"Ncnumpy\ndtype\n" + NESTED + b"\x85R")),
    "a key": ("train", _dict_of(NESTED + b"N")),
    "keys": ("train", b"\x80\x02}(" + NESTED + b"Nu."),
    "keys of a dict": ("train", b"\x80\x02(" + NESTED + b"Nd."),
    "a set": ("train", _dict_of(b"N\x8f(" + NESTED + b"\x90")),
    "a frozen set": ("train", _dict_of(b"N(" + NESTED + b"\x91")),
    "a shape": (
        "train",
        _dict_of(
            b"N" + b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR"
            b"(K\x01"
            + NESTED
            + b"cnumpy\ndtype\nX\x02\0\0\0u1\x85R\x89C\x01atb"
        ),
    ),
    "an array without values": (
        "train",
        _dict_of(b"U\x04datacnumpy.core.multiarray\n_reconstruct\n(NNNtR"),
    ),
    "a length": ("train", b"\x80\x05\x96" + (20 << 30).to_bytes(8, "little")),
    "one text as bytes many times": (
        "train",
        _dict_of(
            b"N" + TEXT + b"q\x000(" + (ENCODE + b"(h\0NtR") * 9000 + b"l"
        ),
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_use_memory_and_time_in_proportion(name, tmp_path):
    file, content = BOMBS[name]
    opened("cifar100", tmp_path)
    (tmp_path / "cifar-100-python" / file).write_bytes(content)
    data = open_dataset("cifar100", tmp_path)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ValueError, match=f"{file} must"):
        data.labels  # noqa: B018
        data.split("train")
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 10**8
    tracemalloc.stop()


def _renamed(path, old, new):
    """Let an annotation name an existing picture elsewhere."""

    def damage(root):
        _edit(root / path, old, new, 1)
        for place in (root.parent, root.parent / "flickr30k-images"):
            pictures()[0].save(place / "secret.jpg")

    return damage


def _linked(*places):
    """Replace a file or folder by a link to its copy elsewhere."""

    def damage(root):
        for number, place in enumerate(places):
            there = root.parent / f"elsewhere-{number}"
            (root / place).rename(there)
            (root / place).symlink_to(there)

    return damage


LEADING_OUT = {
    "flickr30k: a name": (
        "flickr30k",
        _renamed(
            "karpathy/dataset_flickr30k.json",
            b'"1000.jpg"',
            b'"../../secret.jpg"',
        ),
    ),
    "flickr30k: an absolute name": (
        "flickr30k",
        _renamed(
            "karpathy/dataset_flickr30k.json", b'"1000.jpg"', b'"/etc/hostname"'
        ),
    ),
    "coco: a name": (
        "coco",
        _renamed(
            KARPATHY_FILE,
            b'"COCO_train2014_000000000000.jpg"',
            b'"COCO_.._/../secret.jpg"',
        ),
    ),
    "snli_ve: a name": (
        "snli_ve",
        _renamed(
            SNLI, b'"Flickr30K_ID": "0"', b'"Flickr30K_ID": "../../secret"'
        ),
    ),
    "nlvr2: a directory": (
        "nlvr2",
        _renamed(
            NLVR2, b'"directory": ', b'"directory": "../../../..", "was": '
        ),
    ),
    "coco: a picture": (
        "coco",
        _linked("train2014/COCO_train2014_000000000003.jpg"),
    ),
    "coco: a folder": ("coco", _linked("train2014")),
    "coco: annotations": ("coco", _linked(KARPATHY_FILE)),
    "flickr30k: a picture": ("flickr30k", _linked("flickr30k-images/1003.jpg")),
    "sbu: a picture": ("sbu", _linked("SBU/3_7b.jpg")),
    "cc3m: a picture": ("cc3m", _linked("train_image/1.png")),
    "vqav2: a folder": ("vqav2", _linked("train2014")),
    "visual_genome: a folder": ("visual_genome", _linked("images/VG_100K")),
    "snli_ve: a table": ("snli_ve", _linked(SNLI)),
    "cifar10: a batch": (
        "cifar10",
        _linked("cifar-10-batches-py/data_batch_1"),
    ),
    "glue: a table": ("glue", _linked("RTE/train.tsv")),
    "arrow_sbu: a table": ("arrow_sbu", _linked("sbu_0.arrow")),
    "arrow_vqav2: a table": ("arrow_vqav2", _linked("vqav2_val_fix.arrow")),
}


@pytest.mark.parametrize("name", LEADING_OUT)
def test_paths_out_of_the_folder_are_rejected(name, tmp_path, monkeypatch):
    of, damage = LEADING_OUT[name]
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
    if ": a name" not in name and "absolute" not in name:
        options = {"task_name": "rte"} if of == "glue" else {}
        trusting = open_dataset(of, root, outside="1", **options)
        assert trusting.split("train")
    with pytest.raises(ValueError, match="`outside` must be"):
        open_dataset("sbu", root, outside="no")


def test_hub_snapshots_may_link_to_their_blobs(tmp_path):
    root = tmp_path / "datasets--a--b/snapshots/main"
    data = opened("arrow_sbu", root)
    blobs = root.parent.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(root.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert len(data.split("train")) == 24
