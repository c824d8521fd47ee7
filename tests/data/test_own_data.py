"""Own data: tables written by hand or by a spreadsheet, and their pictures."""

import os

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniatures import built

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records.format import Sample

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


LABELED = [ROW | {"label": "true"}, ROW | {"label": "false"}]
# The rows of a task, and the labels that are found in them.
TASKS = {
    "vqa": ([ROW | {"answer": "Red."}, ROW | {"answer": "two"}], ["red", "2"]),
    "captions": ([ROW], []),
    "entailment": (LABELED, ["false", "true"]),
    "image_classification": ([{"image": "0.jpg", "label": "red"}], ["red"]),
    "text_classification": ([{"text": "a\tb", "label": "same"}], ["same"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_columns_decide_the_task(task, tmp_path):
    rows, labels = TASKS[task]
    data = own(tmp_path, {"train.jsonl": rows})
    assert (data.task, data.labels) == (task, labels)
    assert all(report.ok for report in data.check())
    reader = built(data, tmp_path / "built", "train")
    assert (reader.num_records, len(reader)) == (1, len(rows))
    for i, row in enumerate(rows):
        sample = reader.sample(i).sample
        assert sample.text == row.get("text", "")
        if "label" in row:
            assert data.labels[sample.labels[0]] == row["label"]


def test_commas_and_quotes(tmp_path):
    table = (
        "image,text,notes\n"
        '0.jpg,"what, then?",\n'
        '\n0.jpg,"""A"" or\nB?",none\n'
        '0.jpg,a 5" pipe,\n'
    )
    data = own(tmp_path, {"train.csv": table})
    assert texts(data) == ["what, then?", '"A" or\nB?', 'a 5" pipe']


# Tables, and how the error goes on after the name of the file.
BAD = [
    # Cells in wrong columns.
    (
        "image,text,answer\n0.jpg,what?,red\n\n0.jpg,what, then?,red\n",
        "quotes. Received: line 4.*then",
    ),
    ("image,text,answer\n0.jpg,what?,red\n0.jpg,what?\n", "line 3"),
    ('image,text\n0.jpg,"two" dogs\n', "each quote"),
    ("image,text,text\n0.jpg,one,two\n", "each column once"),
    # Columns of no task, or of several.
    ("image;text\n0.jpg;a\n", "one task"),
    ("image,text,answer,label\n0.jpg,a,b,c\n", "one task"),
    ("image,text\n", "."),
    ([ROW | {"answer": "red"}, ROW], "one task.*row 2"),
    ([5], "as published"),
    # Cells without a value, or of another type.
    *(
        (
            [ROW | {column: "red"}, ROW | {column: cell}],
            "answer or label.*row 2",
        )
        for column, cell in [
            *(("answer", cell) for cell in ("  ", [], ["red", ""], [["red"]])),
            *(("label", ""), ("label", {"a": 1})),
        ]
    ),
    ([ROW | {"label": ["a", "b"]}], "."),
]


@pytest.mark.parametrize("table, message", BAD)
def test_bad_tables_are_rejected(table, message, tmp_path):
    kind = "csv" if isinstance(table, str) else "jsonl"
    data = own(tmp_path, {f"train.{kind}": table})
    with pytest.raises(ValueError, match=message):
        data.split("train")
    (report,) = data.check()
    assert not report.ok


def test_byte_order_marks_are_ignored(tmp_path):
    table = "\ufeffimage,text\r\n0.jpg,café\r\n"
    data = own(tmp_path, {"train.CSV": table})
    assert data.task == "captions" and data.check()[0].ok
    assert texts(data) == ["café"]


@pytest.mark.parametrize(
    "names", [("data.csv", "train.csv"), ("data.CSV", "data.jsonl"), ("a.csv",)]
)
def test_ambiguous_tables_are_rejected(names, tmp_path):
    with pytest.raises(ValueError, match="either one table"):
        own(tmp_path, dict.fromkeys(names, "image,text\n"))


@pytest.mark.parametrize(
    "answer, scores",
    [
        ("red", [1]),
        (["Red.", "red"], [1]),
        (["red", "blue"], [0.5, 0.5]),
        (["red"] * 6 + ["blue"] * 3, [6 / 9, 3 / 9]),
        (["red"] * 1 + ["blue"] * 9, [0.3, 1]),
    ],
)
def test_scores_of_few_people_and_of_ten(answer, scores, tmp_path):
    data = own(tmp_path, {"train.jsonl": [ROW | {"answer": answer}]})
    ((sample,),) = (draft.samples for draft in data.split("train"))
    assert sample.labels == tuple(range(len(scores)))
    assert sample.scores == pytest.approx(scores)


def test_questions_without_a_class_are_kept_for_evaluation(tmp_path):
    rows = [
        ROW | {"answer": answer, "notes": ""}
        for answer in ("Red.", "blue", "pink")
    ]
    files = {f"{of}.jsonl": rows for of in ("train", "validation", "test")}
    data = own(tmp_path, files, labels="Red., The green")
    assert data.labels == ["red", "green"]
    ((train,),) = (draft.samples for draft in data.split("train"))
    assert train == Sample("train-1", "what?", (0,), (1.0,))
    for of in ("validation", "test"):
        reader = built(data, tmp_path / "built", of)
        found = [reader.sample(i).sample.labels for i in range(len(reader))]
        assert found == [(0,), (), ()]
    for labels in ("Red,red.", "red,,blue"):
        with pytest.raises(ValueError):
            open_dataset("own", tmp_path, labels=labels).split("train")


def test_whole_numbers_are_sorted_and_ids_are_kept(tmp_path):
    labels, ids = (10, 2, " 0", -1, "11 "), (0, "0a", 1.5, None, "")
    rows = [
        ROW | {"label": label, "id": i}
        for label, i in zip(labels, ids, strict=True)
    ]
    data = own(tmp_path, {"train.jsonl": rows})
    assert data.labels == ["-1", "0", "2", "10", "11"]
    (draft,) = data.split("train")
    assert [s.labels for s in draft.samples] == [(3,), (2,), (1,), (0,), (4,)]
    found = [sample.id for sample in draft.samples]
    assert found == ["0", "0a", "1.5", "train-4", "train-5"]


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


NEARLY = ["answers", "Answer", " answer", "anwser", "labels", "Text ", "ID"]


@pytest.mark.parametrize(
    "kind, column", [("jsonl", "answers")] + [("csv", of) for of in NEARLY]
)
def test_misspelled_columns_are_rejected(kind, column, tmp_path):
    rows = [ROW | {column: "red"}]
    if kind == "csv":
        rows = f"image,text,{column}\n0.jpg,what?,red\n"
    data = own(tmp_path, {f"train.{kind}": rows})
    wanted = "id" if column == "ID" else column.strip().lower()[:4]
    message = f"train.{kind} must spell the column '{wanted[:2]}.*'{column}'"
    with pytest.raises(ValueError, match=message):
        data.split("train")


@pytest.mark.parametrize(
    "image",
    [
        *("../secret.jpg", "{}/secret.jpg", "link.jpg", "up/secret.jpg"),
        "/dev/null",
    ],
)
def test_pictures_outside_need_permission(image, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    pictures()[0].save(tmp_path / "secret.jpg")
    os.symlink(tmp_path / "secret.jpg", root / "link.jpg")
    os.symlink(tmp_path, root / "up")
    rows = [ROW, ROW | {"image": image.format(tmp_path)}]
    data = own(root, {"train.jsonl": rows})
    with pytest.raises(ValueError, match="Each image of .* below its folder"):
        data.split("train")
    assert not data.check()[0].ok
    draft = own(root, {"train.jsonl": rows}, outside=True).split("train")[1]
    if image != "/dev/null":
        assert draft.read().images[0] == (tmp_path / "secret.jpg").read_bytes()
