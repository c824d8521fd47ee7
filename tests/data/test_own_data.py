"""Own data: tables written by hand or by a spreadsheet, and their pictures."""

import codecs
import os
import pathlib
import tracemalloc

import numpy as np
import pytest
import record_rows
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniatures import built

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import write
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


LINES = [ROW | {"answer": "red"}, ROW | {"answer": None}, ROW]
LABELS = [ROW | {"label": 1}, ROW | {"label": {"a": 1}}]
# Tables, and how the error goes on after the name of the file.
BAD = [
    # Cells in wrong columns.
    (
        "image,text,answer\n0.jpg,what?,red\n\n0.jpg,what, then?,red\n",
        r" .*quotes. Received: 4 in row 2 \(line 4\).*then",
    ),
    ("image,text\n0.jpg,a dog, a cat\n", r" .*3 in row 1 \(line 2\)"),
    (
        "image,text,answer\n0.jpg,what?,red\n0.jpg,what?\n",
        r" .*2 in row 2 \(line 3\)",
    ),
    (
        'image,text\n0.jpg,one\n0.jpg,"two\n0.jpg,three\n',
        " must be .*a quote.*begins in line 3",
    ),
    ('image,text\n0.jpg,"two" dogs\n', " must be .*begins in line 2"),
    (
        "image,text,text\n0.jpg,one,two\n",
        " must name each column once.*'text', 'text'",
    ),
    # Columns of no task, or of several.
    ("image;text\n0.jpg;a\n", r" must.*\['image;text'\] in row 1"),
    ("Image,Text\n0.jpg,a\n", r" must.*\['Image', 'Text'\] in row 1"),
    ("image, text\n0.jpg, a\n", r" must.*\['image', ' text'\] in row 1"),
    ("0.jpg,a\n0.jpg,b\n", r" must.*\['0.jpg', 'a'\] in row 1.*'b'"),
    ("image,text,answer,label\n0.jpg,a,b,c\n", "'answer', 'label'.*row 1"),
    ("image,text\n", " must .*at least one row"),
    (LINES, ": .*'answer': None.*answer,image,text in row 1"),
    ([5], "in row 1: 5"),
    # Cells without a value, or of another type.
    *(
        (
            [ROW | {column: "red"}, ROW | {column: cell}],
            f" must have something in '{column}'.* in row 2",
        )
        for column, cell in [
            *(("answer", cell) for cell in ("", "  ", [], ["red", ""])),
            *(("answer", cell) for cell in (["red", None], [["red"]])),
            *(("label", ""), ("image", "")),
        ]
    ),
    (LABELS, " .*'label' with a value of type.*row 2"),
    ([ROW | {"id": [1]}], r" .*'id' with a value of type.*\[1\]"),
]


@pytest.mark.parametrize("table, message", BAD)
def test_bad_tables_are_rejected(table, message, tmp_path):
    kind = "csv" if isinstance(table, str) else "jsonl"
    data = own(tmp_path, {f"train.{kind}": table})
    with pytest.raises(ValueError, match=f"train.{kind}.*{message}"):
        data.split("train")
    (report,) = data.check()
    assert not report.ok and f"train.{kind}" in report.error


@pytest.mark.parametrize("name", ["train.CSV", "train.jsonl"])
def test_byte_order_marks_are_ignored(name, tmp_path):
    content = "image,text\r\n0.jpg,café\r\n" if "CSV" in name else [ROW]
    own(tmp_path, {name: content})
    path = tmp_path / name
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    data = open_dataset("own", tmp_path)
    assert data.task == "captions" and data.check()[0].ok
    assert texts(data) == ["café" if "CSV" in name else "what?"]


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


def test_a_folder_without_tables_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="must hold data, or train"):
        own(tmp_path, {"notes.csv": "image,text\n0.jpg,a\n"})


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


@pytest.mark.parametrize(
    "row, options, message",
    [
        ({"answer": "red"}, {"min_count": 2}, "`min_count` times.*count=2"),
        ({"answer": "red"}, {"labels": "Red,red."}, "`labels` must be.*once"),
        ({"answer": "red"}, {"labels": "red,,blue"}, "`labels` must be.*once"),
        ({}, {"labels": "red"}, "`labels` must be left out"),
        ({"label": "a"}, {"labels": "red"}, "label of .*row 1"),
    ],
)
def test_wrong_labels_are_rejected(row, options, message, tmp_path):
    data = own(tmp_path, {"train.jsonl": [ROW | row]}, **options)
    with pytest.raises(ValueError, match=message):
        data.split("train")


def test_whole_numbers_are_sorted_as_numbers(tmp_path):
    rows = [ROW | {"label": label} for label in (10, 2, " 0", -1, "11 ")]
    data = own(tmp_path, {"train.jsonl": rows})
    assert data.labels == ["-1", "0", "2", "10", "11"]
    (draft,) = data.split("train")
    assert [s.labels for s in draft.samples] == [(3,), (2,), (1,), (0,), (4,)]


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
    message = "data.csv has too few pictures.*Received: none for"
    with pytest.raises(ValueError, match=message):
        data.split("validation")
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


NEARLY = ["answers", "Answer", " answer", "anwser", "labels", "Text ", "ID"]


@pytest.mark.parametrize("column", NEARLY)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_misspelled_columns_are_rejected(column, kind, tmp_path):
    rows = [ROW | {column: "red"}]
    if kind == "csv":
        rows = f"image,text,{column}\n0.jpg,what?,red\n"
    data = own(tmp_path, {f"train.{kind}": rows})
    wanted = "id" if column == "ID" else column.strip().lower()[:4]
    message = f"train.{kind} must spell the column '{wanted[:2]}.*'{column}'"
    with pytest.raises(ValueError, match=message):
        data.split("train")


def test_unread_columns_are_listed(tmp_path):
    rows = [ROW | {"notes": "none", "class": "red"}]
    data = own(tmp_path, {"train.jsonl": rows})
    assert data.task == "captions"
    message = "Columns that are not read: 'class', 'notes'."
    assert message in data.definition("train").definition


def test_ids(tmp_path):
    rows = [ROW | {"id": id} for id in (0, "0a", 1.5)]
    data = own(tmp_path, {"train.jsonl": [*rows, ROW, ROW | {"id": ""}]})
    (draft,) = data.split("train")
    ids = [sample.id for sample in draft.samples]
    assert ids == ["0", "0a", "1.5", "train-4", "train-5"]


def linked(folder):
    """Write a folder with links to files in it and outside."""
    (folder / "inner").mkdir(parents=True)
    pictures()[0].save(folder / "inner/1.jpg")
    pictures()[0].save(folder.parent / "secret.jpg")
    os.symlink(folder.parent / "secret.jpg", folder / "link.jpg")
    os.symlink(folder.parent, folder / "up")
    os.symlink("inner/1.jpg", folder / "good.jpg")
    os.symlink("inner", folder / "within")


@pytest.mark.parametrize(
    "image",
    [
        "../secret.jpg",
        "{}/secret.jpg",
        "link.jpg",
        "up/secret.jpg",
        "/dev/null",
    ],
)
def test_pictures_outside_need_permission(image, tmp_path):
    root = tmp_path / "root"
    linked(root)
    rows = [ROW, ROW | {"image": image.format(tmp_path)}]
    data = own(root, {"train.jsonl": rows})
    with pytest.raises(ValueError, match="below its folder.*in row 2"):
        data.split("train")
    assert not data.check()[0].ok
    draft = own(root, {"train.jsonl": rows}, outside=True).split("train")[1]
    if image != "/dev/null":
        assert draft.read().images[0] == (tmp_path / "secret.jpg").read_bytes()


def test_links_that_stay_inside_are_followed(tmp_path):
    root = tmp_path / "root"
    linked(root)
    os.symlink(root, tmp_path / "another name")
    names = ["good.jpg", "within/1.jpg", str(tmp_path / "another name/0.jpg")]
    rows = [ROW | {"image": name} for name in names]
    data = own(tmp_path / "another name", {"train.jsonl": rows})
    keys = [draft.key for draft in data.split("train")]
    assert keys == ["good.jpg", "within/1.jpg", "0.jpg"]
    assert data.check()[0].ok


def test_invalid_utf_8_is_located(tmp_path):
    data = own(tmp_path, {"train.csv": "text,label\n" + "rain,wet\n" * 5000})
    with open(tmp_path / "train.csv", "ab") as file:
        file.write(b"sn\xf6w,wet\n")
    with pytest.raises(ValueError, match="UTF-8.*byte 0xf6 in line 5002"):
        data.split("train")


def test_memory_of_a_long_table(tmp_path):
    rows = "".join(f"it rained on day {i},wet\n" for i in range(5000))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    data = open_dataset("own", tmp_path)
    tracemalloc.start()
    assert len(data.split("train")) == 5000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As in docs/performance.md for a million records.
    assert most < 5000 * 500


def test_the_index_is_saved_rarely_for_many_shards(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        write, "_save_split", lambda *given: saved.append(given[-1]["shards"])
    )

    def run(jobs):
        for job in jobs:
            yield {"file": pathlib.Path(job.path).name, "left_out": []}

    record_rows.write(
        tmp_path, record_rows.made(1000), num_shards=1000, run=run
    )
    counts = [len(shards) for shards in saved]
    # A kill loses at most 2 % of the shards, and none of a few.
    assert counts[:50] == list(range(50)) and counts[-1] == 1000
    gaps = np.diff(counts)
    assert (gaps <= 1 + 0.03 * np.array(counts[:-1])).all()
    assert len(counts) < 250
