"""Readers of tables of texts: GLUE and own data."""

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniature_small import GLUE
from miniature_small import write_table
from miniatures import built
from miniatures import miniature
from miniatures import opened

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.data.stream.stream import Stream

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND


GLUE_LABELS = {
    "cola": ("CoLA", "acceptable"),
    "sst2": ("SST-2", "positive"),
    "mrpc": ("MRPC", "equivalent"),
    "qqp": ("QQP", "not_duplicate"),
    "stsb": ("STS-B", "similarity"),
    "mnli": ("MNLI", "contradiction"),
    "qnli": ("QNLI", "not_entailment"),
    "rte": ("RTE", "entailment"),
    "wnli": ("WNLI", "entailment"),
}


@pytest.mark.parametrize("name", GLUE_LABELS)
def test_glue(name, tmp_path):
    folder, label = GLUE_LABELS[name]
    root, _ = miniature("glue", tmp_path)
    data = open_dataset("glue", root, task_name=name)
    (sample,) = data.split("train")[0].samples
    texts = [cell for cell in GLUE[folder][1] if " is" in cell or " it" in cell]
    assert sample.text.split("\t") == (texts or ["it is red"])
    assert data.labels[sample.labels[0]] == label
    assert sample.scores == ((3.8,) if name == "stsb" else ())
    tests = [of for of in data.protocols["honest"] if of.startswith("test")]
    for of in tests:
        assert data.split(of)[0].samples[0].labels == ()
    assert len(tests) == (2 if name == "mnli" else 1)


def test_glue_in_json_lines(tmp_path):
    """Read files of the `datasets` library: label ids, or -1 if hidden."""
    row = {"premise": "It\tis red.", "hypothesis": "It is.", "idx": 0}
    write_lines(tmp_path / "train.jsonl", [row | {"label": 2}])
    write_lines(tmp_path / "test_matched.jsonl", [row | {"label": -1}])
    data = open_dataset("glue", tmp_path, task_name="mnli")
    # A tab separates the two texts, so those within them are replaced.
    x, y = Stream(built(data, tmp_path / "built", "train"), 1).batch(0)
    assert (x["text"], x["second_text"], y) == (b"It is red.", b"It is.", 2)
    assert data.split("test_matched")[0].samples[0].labels == ()


def test_tabs_in_single_texts_are_replaced(tmp_path):
    row = {"sentence": "It\tis red.", "label": 1}
    write_lines(tmp_path / "train.jsonl", [row])
    data = open_dataset("glue", tmp_path, task_name="sst2")
    assert data.split("train")[0].samples[0].text == "It is red."


def test_rows_may_be_short_or_long_outside_the_columns_to_read(tmp_path):
    root, _ = miniature("glue", tmp_path)
    path = root / "RTE/train.tsv"
    rows = '0\ta, "b\tc\tentailment\tmore\n'
    path.write_text(f"index\tsentence1\tsentence2\tlabel\n{rows}")
    data = open_dataset("glue", root, task_name="rte")
    assert data.split("train")[0].samples[0].text == 'a, "b\tc'


def test_short_rows_of_qqp_are_left_out(tmp_path):
    root, _ = miniature("glue", tmp_path)
    path = root / "QQP/train.tsv"
    lines = path.read_text().splitlines()
    # Ends in its first question; lacks the label.
    lines[3], lines[5] = "0\t1\t2\tIt is", lines[5].rpartition("\t")[0]
    path.write_text("\n".join(lines))
    data = open_dataset("glue", root, task_name="qqp")
    with pytest.warns(UserWarning, match="2 of 12 rows of .*train.tsv.*row 3"):
        drafts = data.split("train")
    wanted = [n for n in range(1, 13) if n not in (3, 5)]
    assert [d.key for d in drafts] == [f"train-{n}" for n in wanted]
    # No column may be missing.
    path.write_text("\n".join(lines[:3]).replace("is_dup", "dup"))
    with pytest.raises(ValueError, match="'is_duplicate'.*no such key"):
        data.split("train")


@pytest.mark.parametrize(
    "folder, row, message",
    [
        ("RTE", "1\ta\tc\n", "'label'.* None in row 13"),
        ("MRPC", "1\t7", "'#1 String'"),
        *(
            (
                "STS-B",
                f"1\tnews\tIt is.\tIt was.\t{score}\n",
                f"'score' of .*train.tsv must be a number.*'{score}' in row 13",
            )
            for score in ("n/a", "nan", "7", "")
        ),
    ],
)
def test_bad_rows_are_rejected(folder, row, message, tmp_path):
    root, _ = miniature("glue", tmp_path)
    with open(root / folder / "train.tsv", "a") as file:
        file.write(row)
    name = folder.lower().replace("-", "")
    data = open_dataset("glue", root, task_name=name)
    with pytest.raises(ValueError, match=message):
        data.split("train")


@pytest.mark.parametrize("label", [{"labels": 1}, {"label": -1}])
def test_json_lines_for_training_must_have_labels(label, tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"sentence": "x"} | label])
    data = open_dataset("glue", tmp_path, task_name="sst2")
    message = "train.jsonl must .*(key 'lab|be one of)"
    with pytest.raises(ValueError, match=message):
        data.split("train")


PICTURE = {"image": "0.jpg"}
# The rows of a task, and the labels that are found in them.
OWN = {
    "vqa": (
        [
            PICTURE | {"text": "what?", "answer": "Red."},
            PICTURE | {"text": "how many?", "answer": "two"},
        ],
        ["red", "2"],
    ),
    "captions": ([PICTURE | {"text": "a shape"}], []),
    "entailment": (
        [
            PICTURE | {"text": "red", "label": "true"},
            PICTURE | {"text": "blue", "label": "false"},
        ],
        ["false", "true"],
    ),
    "image_classification": ([PICTURE | {"label": "red"}], ["red"]),
    "text_classification": ([{"text": "a\tb", "label": "same"}], ["same"]),
}


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
@pytest.mark.parametrize("task", OWN)
def test_own_data(task, form, tmp_path):
    rows, labels = OWN[task]
    pictures()[0].save(tmp_path / "0.jpg")
    write_table(tmp_path / f"train{form}", rows)
    data = open_dataset("own", tmp_path)
    assert (data.task, data.labels) == (task, labels)
    assert all(report.ok for report in data.check())
    reader = built(data, tmp_path / "built", "train")
    assert (reader.num_records, len(reader)) == (1, len(rows))
    for i, row in enumerate(rows):
        item = reader.sample(i)
        assert item.sample.text == row.get("text", "")
        if "label" in row:
            assert data.labels[item.sample.labels[0]] == row["label"]


def test_a_single_own_table_is_divided_by_pictures(tmp_path):
    data = opened("own", tmp_path)
    keys = [
        {d.key for d in data.split(of)}
        for of in ("train", "validation", "test")
    ]
    assert all(keys) and sum(map(len, keys)) == len(set.union(*keys)) == 24


def test_own_answers_of_ten_people_and_own_labels(tmp_path):
    row = {"image": "0.jpg", "text": "what?", "id": "q"}
    answers = ["Red."] * 3 + ["blue"] * 7
    write_lines(tmp_path / "train.jsonl", [row | {"answer": answers}])
    data = open_dataset("own", tmp_path, labels="blue, red")
    (sample,) = data.split("train")[0].samples
    assert sample == Sample("q", "what?", (1, 0), (0.9, 1.0))
    data = open_dataset("own", tmp_path, labels="green")
    assert data.split("train") == []
