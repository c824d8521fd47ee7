"""Arrow tables: types, nulls, classes, and the splits that they allow."""

import re

import pytest
from builders import ONE_BACKEND
from miniature_pictures import pictures
from miniatures import built
from miniatures import write_arrow

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.datasets.arrow import open_table
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.metrics.classification import evaluate_nlvr2

pytestmark = ONE_BACKEND


def captions(folder, of):
    rows = [
        {"image": b"", "caption": caption, "image_id": f"{n}.jpg"}
        for n, caption in enumerate(of)
    ]
    write_arrow(folder, "vg", rows)


def test_damaged_bytes_crash_no_process(tmp_path):
    """Unchecked offsets would make Arrow read behind the end of a file."""
    captions(tmp_path, [["a"] * 9, ["b"]] * 9)
    path = tmp_path / "vg.arrow"
    whole, rejected = path.read_bytes(), 0
    for place in range(0, len(whole), 8):
        for word in (2**31 - 1, 2**40):
            damaged = whole[:place] + word.to_bytes(8, "little")
            path.write_bytes(damaged + whole[place + 8 :])
            open_table.cache_clear()
            try:
                open_dataset("arrow_visual_genome", tmp_path).split("train")
            except ValueError:
                rejected += 1
    assert rejected > len(whole) // 16


def asked(numbers, **changes):
    """Return rows of two questions with two answers each."""
    return [
        {
            "image": pictures()[number].encoded(),
            "questions": ["is it?", "is it not?"],
            "answers": [["yes", "circle"], ["no", "circle"]],
            "answer_labels": [[1, 2], [0, 2]],
            "answer_scores": [[1.0, 0.9], [1.0, 0.9]],
            "image_id": number,
            "question_id": [1000 * number, 1000 * number + 1],
            **changes,
        }
        for number in numbers
    ]


def test_both_sets_of_questions_have_one_list_of_classes(tmp_path):
    folder = tmp_path / "tables"
    write_arrow(folder, "vqav2_train_fix", asked(range(6)))
    write_arrow(folder, "vqav2_val_fix", asked(range(6, 9)))
    # No question of Visual Genome has the class "circle", all have "red".
    red = {"answers": [["yes", "red"], ["no", "red"]]}
    red |= {"answer_labels": [[1, 3], [0, 3]]}
    write_arrow(folder, "vgqa_train", asked(range(9, 18), **red))
    data = [open_dataset(n, folder) for n in ("arrow_vqav2", "arrow_vgqa")]
    assert [of.labels for of in data] == [["no", "yes", "circle", "red"]] * 2
    readers = [
        built(of, tmp_path / f"built_{i}", "train") for i, of in enumerate(data)
    ]
    labels = Stream(readers, 4, transform("clip", 32)).batch(0)[1]
    assert labels.shape == (4, 4)


def contradicting(folder):
    write_arrow(folder, "vqav2_train_fix", asked([0]))
    other = asked([0], answer_labels=[[1, 3], [0, 3]])
    write_arrow(folder, "vgqa_train", other)


def shortened(values):
    """Return a writer of a row of which one list lacks its last value."""

    def write(folder):
        rows = asked([0, 1])
        values(rows[1]).pop()
        write_arrow(folder, "vqav2_train_fix", rows)

    return write


NO_TEXTS = "must be as published|A text must"
NO_PAIRS = "zip|scores as many"
# The reader, what is written, and what the error tells.
REFUSED = [
    *(
        ("visual_genome", lambda folder, of=of: captions(folder, of), NO_TEXTS)
        for of in (
            ["a red cat", "a dog"],
            [["a"], None],
            [["a"]] * 1001 + [["a", None]],
        )
    ),
    ("vqav2", contradicting, "one id.*'circle', 2"),
    ("vqav2", shortened(lambda row: row["question_id"]), NO_PAIRS),
    ("vqav2", shortened(lambda row: row["answer_labels"]), NO_PAIRS),
    ("vqav2", shortened(lambda row: row["answer_scores"][0]), NO_PAIRS),
]


@pytest.mark.parametrize("of, write, message", REFUSED)
def test_other_tables_are_refused(of, write, message, tmp_path):
    """By `check` and by a build."""
    write(tmp_path)
    data = open_dataset(f"arrow_{of}", tmp_path)
    (report,) = data.check(splits=["train"])
    assert not report.ok and re.search(message, report.error)
    with pytest.raises(ValueError, match=message):
        built(data, tmp_path / "built", "train")


def test_sentence_numbers_of_nlvr2_tables(tmp_path):
    def pair(identifier, *statement):
        return {
            **{"image_0": b"", "image_1": b"", "identifier": identifier},
            **{"questions": statement, "answers": ["True"] * len(statement)},
        }

    rows = [
        pair("dev-7-1", "two cats.", "one dog."),
        # Its first sentence was left out.
        pair("dev-7-0", "one dog."),
        pair("dev-8-0", "one dog.", "one dog."),
    ]
    write_arrow(tmp_path, "nlvr2_dev", rows)
    data = open_dataset("arrow_nlvr2", tmp_path)
    ids = [s.id for d in data.split("validation") for s in d.samples]
    numbers = ("7-1-0", "7-1-1", "7-0-1", "8-0-0", "8-0-1")
    assert ids == [f"dev-{number}" for number in numbers]
    # One pair is wrong, so only its sentence is inconsistent.
    report = evaluate_nlvr2(ids, [1] * 5, [1, 1, 0, 1, 1])
    assert (report.sentences, report.consistency) == (4, 75)
    assert report.split == "dev"
