"""Arrow tables: types, nulls, classes, and the splits that they allow."""

import miniature_arrow as tables
import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniatures import built

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.metrics.nlvr2 import evaluate_nlvr2

pytest.importorskip("easy_vqa")
pa = pytest.importorskip("pyarrow")
pytestmark = ONE_BACKEND


def refused(name, folder, message, split="train"):
    """Check that the reader rejects a table and `check` reports it."""
    data = open_dataset(name, folder)
    with pytest.raises(ValueError, match=message):
        data.split(split)
    report = open_dataset(name, folder).check(splits=[split])[0]
    assert "ERROR" in str(report) and not report.ok


def captions(folder, of, types=None):
    rows = [
        {"image": b"", "caption": caption, "image_id": f"{n}.jpg"}
        for n, caption in enumerate(of)
    ]
    tables.write(folder, "vg", rows, types)
    return folder


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            ["a red cat", "a dog"],
            "'caption' of .*vg.arrow .* list<string>. Received: string",
        ),
        ([["a"], None], "'caption' of .*vg.arrow .* no null.* in row 1"),
        ([["a"]] * 1001 + [["a", None]], "'caption' of .* in row 1001"),
    ],
)
def test_captions_must_be_lists_of_texts(rows, message, tmp_path):
    captions(tmp_path, rows)
    refused("arrow_visual_genome", tmp_path, message)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.large_string()),
        pa.list_(pa.string(), 1),
        pa.list_(pa.string_view()),
    ],
)
def test_the_width_of_a_type_does_not_matter(kind, tmp_path):
    captions(tmp_path, [["a"], ["b"]], {"caption": kind})
    data = open_dataset("arrow_visual_genome", tmp_path)
    assert [d.samples[0].text for d in data.split("train")] == ["a", "b"]


def test_pictures_must_be_bytes(tmp_path):
    rows = [{"image": "1.jpg", "caption": ["a"], "image_id": 1}]
    tables.write(tmp_path, "vg", rows)
    refused("arrow_visual_genome", tmp_path, "'image' .* type binary.*string")


def test_the_stream_format_is_rejected(tmp_path):
    table = pa.table({"image": [b"x"], "caption": [["a"]], "image_id": ["1"]})
    with pa.OSFile(str(tmp_path / "vg.arrow"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    refused("arrow_visual_genome", tmp_path, "file format.*in the stream form")


def questions(folder, **of):
    for name, numbers in of.items():
        rows = [tables.questions(n, True) for n in numbers]
        tables.write(folder, name, rows)


def test_tables_as_typed_have_honest_splits(tmp_path):
    questions(
        tmp_path,
        vqav2_train=range(6),
        vqav2_val=range(6, 12),
        vqav2_trainable_val=range(6, 10),
        vqav2_rest_val=range(10, 12),
    )
    data = open_dataset("arrow_vqav2", tmp_path)

    def numbers(split, protocol):
        drafts = data.split(split, f"{protocol}_as_typed")
        return [int(d.key.split("/")[1]) for d in drafts]

    assert numbers("train", "honest") == [*range(6)]
    assert numbers("validation", "honest") == [*range(6, 12)]
    assert numbers("train", "held_out") == [*range(10)]
    assert numbers("validation", "held_out") == [10, 11]
    assert numbers("train", "official") == [*range(12)]
    for protocol, leaks in (("honest", 0), ("held_out", 0), ("official", 1)):
        of = data.definition("validation", f"{protocol}_as_typed").definition
        assert ("LEAKS" in of) == leaks and "as typed" in of
    assert "held_out" not in data.protocols


def test_both_sets_of_questions_have_one_list_of_classes(tmp_path):
    folder = tmp_path / "tables"
    questions(folder, vqav2_train_fix=range(6), vqav2_val_fix=range(6, 9))
    rows = [tables.questions(n, True) for n in range(9, 18)]
    for row in rows:
        # No question of Visual Genome has the class "circle", all have "red".
        row["answers"] = [[a, "red"] for a, _ in row["answers"]]
        row["answer_labels"] = [[i, 3] for i, _ in row["answer_labels"]]
    tables.write(folder, "vgqa_train", rows)
    data = [open_dataset(n, folder) for n in ("arrow_vqav2", "arrow_vgqa")]
    assert [of.labels for of in data] == [["no", "yes", "circle", "red"]] * 2
    readers = [
        built(of, tmp_path / f"built_{i}", "train") for i, of in enumerate(data)
    ]
    labels = Stream(readers, 4, transform("clip", 32)).batch(0)[1]
    assert labels.shape == (4, 4)


@pytest.mark.parametrize("column", ["answers", "answer_labels"])
def test_contradicting_class_ids_are_rejected(column, tmp_path):
    questions(tmp_path, vqav2_train_fix=range(3))
    rows = [tables.questions(n, True) for n in range(3)]
    other = {"circle": "blue", 2: 3}
    for row in rows:
        row[column] = [[other.get(x, x) for x in of] for of in row[column]]
    tables.write(tmp_path, "vgqa_train", rows)
    message = (
        "'circle' with id 2 in .*vqav2_train_fix.arrow, .*vgqa_train.arrow"
    )
    refused("arrow_vqav2", tmp_path, message)
    refused("arrow_vgqa", tmp_path, message)


@pytest.mark.parametrize(
    "column, place, message",
    [
        ("question_id", (), "question of vqav2_train_fix/0 in .* id"),
        ("answer_labels", (0,), "fix.arrow must have an id .* in row 1"),
    ],
)
def test_lists_of_unequal_lengths_are_rejected(
    column, place, message, tmp_path
):
    rows = [tables.questions(0, True) for _ in range(2)]
    cells = rows[1][column]
    for i in place:
        cells = cells[i]
    cells.pop()
    tables.write(tmp_path, "vqav2_train_fix", rows)
    refused("arrow_vqav2", tmp_path, message)


def test_sentence_numbers_of_nlvr2_tables(tmp_path):
    def pair(identifier, *statement):
        return {
            "image_0": pictures()[0].encoded(),
            "image_1": pictures()[1].encoded(),
            "questions": list(statement),
            "answers": ["True"] * len(statement),
            "identifier": identifier,
        }

    rows = [
        pair("dev-7-1", "two cats.", "one dog."),
        # Its first sentence was left out.
        pair("dev-7-0", "one dog."),
        pair("dev-8-0", "one dog.", "one dog."),
    ]
    tables.write(tmp_path, "nlvr2_dev", rows)
    data = open_dataset("arrow_nlvr2", tmp_path)
    ids = [s.id for d in data.split("validation") for s in d.samples]
    assert ids == [
        *("dev-7-1-0", "dev-7-1-1", "dev-7-0-1", "dev-8-0-0", "dev-8-0-1"),
    ]
    # One pair is wrong, so only its sentence is inconsistent.
    report = evaluate_nlvr2(ids, [1] * 5, [1, 1, 0, 1, 1])
    assert (report.sentences, report.consistency) == (4, 75)
    assert report.split == "dev"
