"""Own data: tables that people wrote by hand or by a spreadsheet."""

import codecs

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniatures import opened

from keras_bridgetower.data.datasets import open_dataset

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND

ROW = {"image": "0.jpg", "text": "what?"}


def own(folder, files, **options):
    """Own data in files of these texts, or of these rows of JSON."""
    pictures()[0].save(folder / "0.jpg")
    for name, held in files.items():
        if isinstance(held, str):
            (folder / name).write_text(held, encoding="utf-8")
        else:
            write_lines(folder / name, held)
    return open_dataset("own", folder, **options)


def texts(data, split="train"):
    return [s.text for draft in data.split(split) for s in draft.samples]


def test_commas_and_quotes(tmp_path):
    table = (
        "image,text,notes\n"
        '0.jpg,"what, then?",\n'
        '\n0.jpg,"""A"" or\nB?",none\n'
        '0.jpg,a 5" pipe,\n'
    )
    data = own(tmp_path, {"train.csv": table})
    assert texts(data) == ["what, then?", '"A" or\nB?', 'a 5" pipe']


SHIFTED = {
    "too many": (
        "image,text,answer\n0.jpg,what?,red\n\n0.jpg,what, then?,red\n",
        r"train.csv .*quotes. Received: 4 cells in row 2 \(line 4\).*then",
    ),
    "too many at the end": (
        "image,text\n0.jpg,a dog, a cat\n",
        r"train.csv .*3 cells in row 1 \(line 2\)",
    ),
    "too few": (
        "image,text,answer\n0.jpg,what?,red\n0.jpg,what?\n",
        r"train.csv .*2 cells in row 2 \(line 3\)",
    ),
    "open quote": (
        'image,text\n0.jpg,one\n0.jpg,"two\n0.jpg,three\n',
        "train.csv must be .*a quote.*begins in line 3",
    ),
    "closed too early": (
        'image,text\n0.jpg,"two" dogs\n',
        "train.csv must be .*a quote.*begins in line 2",
    ),
    "name twice": (
        "image,text,text\n0.jpg,one,two\n",
        "train.csv must name each column once.*'text', 'text'",
    ),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_cells_are_refused(name, tmp_path):
    table, told = SHIFTED[name]
    data = own(tmp_path, {"train.csv": table})
    with pytest.raises(ValueError, match=told):
        data.split("train")
    (report,) = data.check()
    assert not report.ok and "train.csv" in report.error


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_a_byte_order_mark_is_no_text(name, tmp_path):
    held = "image,text\r\n0.jpg,café\r\n" if "csv" in name else [ROW]
    own(tmp_path, {name: held})
    path = tmp_path / name
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    data = open_dataset("own", tmp_path)
    assert data.task == "captions" and data.check()[0].ok
    assert texts(data) == ["café" if "csv" in name else "what?"]


def test_a_byte_order_mark_in_json(tmp_path):
    data = opened("coco", tmp_path)
    path = tmp_path / "karpathy/dataset_coco.json"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert len(data.split("train")) == 14
