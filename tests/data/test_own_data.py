"""Own data: tables written by hand or by a spreadsheet."""

import codecs
import json
import os

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniatures import built
from miniatures import opened

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records.format import Sample

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND

ROW = {"image": "0.jpg", "text": "what?"}


def own(folder, files, **options):
    """Write files from texts or rows of JSON, and open them as own data."""
    folder.mkdir(exist_ok=True)
    pictures()[0].save(folder / "0.jpg")
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8")
        else:
            write_lines(folder / name, content)
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
def test_shifted_cells_are_rejected(name, tmp_path):
    table, message = SHIFTED[name]
    data = own(tmp_path, {"train.csv": table})
    with pytest.raises(ValueError, match=message):
        data.split("train")
    (report,) = data.check()
    assert not report.ok and "train.csv" in report.error


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_byte_order_marks_are_ignored(name, tmp_path):
    content = "image,text\r\n0.jpg,café\r\n" if "csv" in name else [ROW]
    own(tmp_path, {name: content})
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


@pytest.mark.parametrize(
    "column, cell",
    [
        ("answer", ""),
        ("answer", "  "),
        ("answer", []),
        ("answer", ["red", ""]),
        ("answer", ["red", None]),
        ("answer", [["red"]]),
        ("label", ""),
        ("image", ""),
    ],
)
def test_empty_cells_are_rejected(column, cell, tmp_path):
    whole = ROW | ({} if column == "image" else {column: "red"})
    data = own(tmp_path, {"train.jsonl": [whole, whole | {column: cell}]})
    message = f"train.jsonl must have something in '{column}'.* in row 2"
    with pytest.raises(ValueError, match=message):
        data.split("train")


@pytest.mark.parametrize("cell", [{"a": 1}, ["red"]])
def test_a_label_must_be_one_value(cell, tmp_path):
    data = own(tmp_path, {"train.jsonl": [ROW | {"label": cell}]})
    with pytest.raises(ValueError, match="'label' with a value of type.*row 1"):
        data.split("train")


@pytest.mark.parametrize(
    "names",
    [
        ("data.csv", "train.csv"),
        ("data.jsonl", "test.csv"),
        ("train.csv", "train.jsonl"),
        ("data.CSV", "data.jsonl"),
    ],
)
def test_ambiguous_tables_are_rejected(names, tmp_path):
    with pytest.raises(ValueError, match=f"either.*{names[0]}.*{names[1]}"):
        own(tmp_path, dict.fromkeys(names, "image,text\n0.jpg,a\n"))


@pytest.mark.parametrize("name", ["train.CSV", "train.JSONL"])
def test_uppercase_suffixes(name, tmp_path):
    content = "image,text\n0.jpg,what?\n" if "CSV" in name else [ROW]
    assert texts(own(tmp_path, {name: content})) == ["what?"]


@pytest.mark.parametrize(
    "answer, scores",
    [
        ("red", [1]),
        (["red"], [1]),
        (["Red.", "red"], [1]),
        (["red", "blue"], [0.5, 0.5]),
        (["red"] * 6 + ["blue"] * 3, [6 / 9, 3 / 9]),
        (["red"] * 3 + ["blue"] * 7, [0.9, 1]),
        (["red"] * 1 + ["blue"] * 9, [0.3, 1]),
    ],
)
def test_scores_of_few_people_and_of_ten(answer, scores, tmp_path):
    data = own(tmp_path, {"train.jsonl": [ROW | {"answer": answer}]})
    ((sample,),) = (draft.samples for draft in data.split("train"))
    assert sample.labels == tuple(range(len(scores)))
    assert sample.scores == pytest.approx(scores)


def test_questions_without_a_class_are_kept_for_evaluation(tmp_path):
    rows = [ROW | {"answer": answer} for answer in ("Red.", "blue", "pink")]
    files = {f"{of}.jsonl": rows for of in ("train", "validation", "test")}
    data = own(tmp_path, files, labels="Red., The green")
    assert data.labels == ["red", "green"]
    ((train,),) = (draft.samples for draft in data.split("train"))
    assert train == Sample("train-1", "what?", (0,), (1.0,))
    message = data.definition("train").definition
    assert "2 questions without a class as answer: left out." in message
    for of in ("validation", "test"):
        reader = built(data, tmp_path / "built", of)
        found = [reader.sample(i).sample.labels for i in range(len(reader))]
        assert found == [(0,), (), ()]
        assert "2 questions without a class" in reader.definition
        assert "kept" in reader.definition
    data = open_dataset("own", tmp_path)
    assert "questions" not in data.definition("train").definition


def test_min_count_above_all_counts_is_rejected(tmp_path):
    data = own(
        tmp_path, {"train.jsonl": [ROW | {"answer": "red"}]}, min_count=2
    )
    with pytest.raises(ValueError, match="`min_count` times.*min_count=2"):
        data.split("train")


@pytest.mark.parametrize("labels", ["Red,red.", "red,", "red,,blue"])
def test_duplicate_labels_are_rejected(labels, tmp_path):
    files = {"train.jsonl": [ROW | {"answer": "red"}]}
    data = own(tmp_path, files, labels=labels)
    with pytest.raises(ValueError, match="each there once.*Received: labels="):
        data.split("train")


def test_labels_of_captions_are_rejected(tmp_path):
    data = own(tmp_path, {"train.jsonl": [ROW]}, labels="red")
    with pytest.raises(ValueError, match="`labels` must be left out"):
        data.split("train")


LINES = "\n".join(
    json.dumps(row)
    for row in [ROW | {"answer": "red"}, ROW | {"answer": None}, ROW]
)
COLUMNS = {
    "semicolons": ("image;text\n0.jpg;a\n", r"\['image;text'\] in row 1"),
    "capitals": ("Image,Text\n0.jpg,a\n", r"\['Image', 'Text'\] in row 1"),
    "blanks": ("image, text\n0.jpg, a\n", r"\['image', ' text'\] in row 1"),
    "no header": ("0.jpg,a\n0.jpg,b\n", r"\['0.jpg', 'a'\] in row 1.*'b'"),
    "two tasks": (
        "image,text,answer,label\n0.jpg,a,b,c\n",
        "'answer', 'label'.*row 1",
    ),
    "no rows": ("image,text\n", "at least one row"),
    "nothing": ("", "at least one row"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_no_task_are_rejected(name, tmp_path):
    table, message = COLUMNS[name]
    data = own(tmp_path, {"train.csv": table})
    with pytest.raises(ValueError, match=f"train.csv must.*{message}"):
        data.split("train")


def test_rows_of_several_tasks_are_rejected(tmp_path):
    data = own(tmp_path, {"train.jsonl": LINES})
    message = (
        "Received: image,text in row 2 of .*train.jsonl: .*'answer': None.*"
    )
    with pytest.raises(
        ValueError, match=message + "answer,image,text in row 1"
    ):
        data.split("train")
    data = own(tmp_path, {"train.jsonl": "5\n"})
    with pytest.raises(ValueError, match="in row 1: 5"):
        data.split("train")


def test_whole_numbers_are_sorted_as_numbers(tmp_path):
    rows = [ROW | {"label": label} for label in (10, 2, "0", -1, "11 ")]
    data = own(tmp_path, {"train.jsonl": rows})
    assert data.labels == ["-1", "0", "2", "10", "11"]
    (draft,) = data.split("train")
    assert [s.labels for s in draft.samples] == [(3,), (2,), (1,), (0,), (4,)]


def test_blanks_around_labels(tmp_path):
    table = "image,text,label\n0.jpg,a, yes\n0.jpg,b,yes \n0.jpg,c,No\n"
    data = own(tmp_path, {"train.csv": table})
    assert data.labels == ["No", "yes"]


def test_spellings_of_a_path_are_one_record(tmp_path):
    root = tmp_path / "root"
    pictures()[0].save(tmp_path / "beside.jpg")
    names = ["0.jpg", "./0.jpg", "x/../0.jpg", str(root / "0.jpg")]
    outside = ["../beside.jpg", str(tmp_path / "beside.jpg")]
    rows = [ROW | {"image": name} for name in names + outside]
    data = own(root, {"train.jsonl": rows}, outside=True)
    drafts = data.split("train")
    assert [draft.key for draft in drafts] == ["0.jpg", *outside]
    assert len(drafts[0].samples) == len(names)
    assert all(report.ok for report in data.check())


def test_too_few_pictures_to_split_are_rejected(tmp_path):
    data = own(tmp_path, {"data.csv": "image,text\n0.jpg,a\n0.jpg,b\n"})
    message = "data.csv has too few pictures.*Received: 1 of them, none for"
    for of in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=message):
            data.split(of)
    assert not any(report.ok for report in data.check())


@pytest.mark.skipif(os.name != "posix", reason="POSIX alone has pipes")
def test_pipes_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "data.csv")
    with pytest.raises(ValueError, match="data.csv must be a plain file"):
        open_dataset("own", tmp_path).split("train")
    (tmp_path / "data.csv").unlink()
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.csv").write_text("image,text\na.png,a dog\n")
    report = open_dataset("own", tmp_path).check(splits=["train"])[0]
    assert "a.png must be a plain file" in str(report)
