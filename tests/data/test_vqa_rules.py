"""The rules of VQAv2 and Visual Genome, by tables written by hand."""

import pytest
from builders import ONE_BACKEND
from miniature_pictures import write_json
from miniatures import miniature

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.datasets.vqa import VGQA

pytestmark = ONE_BACKEND

# Most common answers, in the order of the files, and how often each occurs.
TRAIN = [("blue", 1), ("Yes", 9), ("red", 8), ("two", 8), ("the", 9)]
VAL = [("Red.", 1), ("blue", 8), ("1,000", 9), ("yes.", 1)]
# Ids follow the first occurrence; "two" occurs eight times; an article alone
# is normalized to nothing.
CLASSES = ["blue", "yes", "red", "", "1000"]

# Answers of ten people to a question about picture 1, and their scores.
SAID = {
    "counted together": ["Red."] * 2 + ["red"] + ["blue"] * 4 + ["two"] * 3,
    "spelled otherwise": ["Yes"] * 10,
    "no class": ["two"] * 10,
    "an article": ["the"] * 2 + ["blue"] * 8,
    "each number": ["blue"] + ["yes"] * 2 + ["red"] * 3 + ["1000"] * 4,
}
FIXED = {
    "counted together": {"red": 0.9, "blue": 1.0},
    "spelled otherwise": {"yes": 1.0},
    "an article": {"": 0.6, "blue": 1.0},
    "each number": {"blue": 0.3, "yes": 0.6, "red": 0.9, "1000": 1.0},
}
AS_TYPED = {
    "counted together": {"red": 0.3, "blue": 1.0},
    "an article": {"blue": 1.0},
    "each number": {"blue": 0.3, "yes": 0.6, "red": 0.9, "1000": 1.0},
}


def _write(folder, year, rows):
    """Write rows of picture, question, most common answer and all answers."""
    questions, annotations = [], []
    for number, (image, question, common, statement) in enumerate(rows):
        ids = {"image_id": image, "question_id": len(year) * 1000 + number}
        questions.append(ids | {"question": question})
        annotations.append(
            ids
            | {
                "multiple_choice_answer": common,
                "answers": [{"answer": a} for a in statement],
            }
        )
    names = f"OpenEnded_mscoco_{year}_questions", f"mscoco_{year}_annotations"
    content = {"questions": questions}, {"annotations": annotations}
    for name, value in zip(names, content, strict=True):
        write_json(folder / f"v2_{name}.json", value)


@pytest.fixture
def folder(tmp_path):
    def rows(counts):
        return [
            (0, f"{answer} {i}?", answer, [answer] * 10)
            for answer, count in counts
            for i in range(count)
        ]

    mentioned = [
        (1, question, "Yes", statement) for question, statement in SAID.items()
    ]
    _write(tmp_path, "train2014", rows(TRAIN))
    _write(tmp_path, "val2014", rows(VAL) + mentioned)
    return tmp_path


def _scores(data, part):
    (draft,) = (d for d in data.drafts(part) if d.key.endswith("000001"))
    return {
        s.text: dict(
            zip((data.labels[i] for i in s.labels), s.scores, strict=True)
        )
        for s in draft.samples
    }


def test_classes(folder):
    assert open_dataset("vqav2", folder).labels == CLASSES
    all_of_them = open_dataset("vqav2", folder, min_count=1).labels
    assert all_of_them == ["blue", "yes", "red", "2", "", "1000"]


def test_soft_scores(folder):
    data = open_dataset("vqav2", folder)
    assert _scores(data, "vqav2_val_fix") == FIXED
    assert _scores(data, "vqav2_val") == AS_TYPED
    # "Yes", "the", "Red." and "1,000" are no classes as typed; "two" never.
    counts = {
        part: sum(len(d.samples) for d in data.drafts(part))
        for part in ("vqav2_train_fix", "vqav2_train")
    }
    assert counts == {"vqav2_train_fix": 27, "vqav2_train": 9}


def test_honest_validation_has_all_questions(folder, tmp_path):
    data = open_dataset("vqav2", folder)
    assert _scores(data, "vqav2_val_fix_all") == FIXED | {"no class": {}}
    assert {*_scores(data, "vqav2_val_all")} == {*SAID}
    for protocol, *wanted in (("honest", 27, 24), ("official", 27 + 23, 23)):
        for split, count in zip(("train", "validation"), wanted, strict=True):
            drafts = data.split(split, protocol)
            assert sum(len(d.samples) for d in drafts) == count


def test_protocols(tmp_path):
    pytest.importorskip("easy_vqa")
    root, _ = miniature("vqav2", tmp_path)
    data = open_dataset("vqav2", root)

    def keys(split, protocol):
        return [d.key for d in data.split(split, protocol)]

    train, val = keys("train", "honest"), keys("validation", "honest")
    assert (len(train), len(val)) == (12, 6) and not {*train} & {*val}
    assert keys("train", "official") == train + val
    assert keys("validation", "official") == val
    held_out = keys("validation", "held_out")
    assert held_out and {*held_out} < {*val}
    assert {*keys("train", "held_out")} == {*train, *val} - {*held_out}
    assert keys("test_dev", "honest") == keys("test", "honest")


QAS = [
    ("What colour?", "Red."),
    ("What colour?", "red"),
    ("How many?", "Two"),
    ("Is it?", "Yes."),
    ("Is it?", "Red"),
    ("Is there?", "Yes"),
    ("Is there?", "Perhaps"),
    ("What is it?", "a 1,000"),
]
# One distinct answer that is a class, repeated questions once.
KEPT = [("What colour?", "red"), ("Is there?", "yes"), ("What is it?", "1000")]
# Karpathy's split of the pictures that claim to be in COCO, by coco id.
KARPATHY = {50: "train", 51: "restval", 52: "val", 53: "test"}


@pytest.fixture
def genome(folder, tmp_path, monkeypatch):
    images = [
        {"cocoid": i, "split": split, "filename": "", "sentences": []}
        for i, split in KARPATHY.items()
    ]
    write_json(folder / "dataset_coco.json", {"images": images})
    root = tmp_path / "vg"
    for name in ("VG_100K", "VG_100K_2"):
        (root / name).mkdir(parents=True)
    rows, data = [], []
    for number in range(12):
        pairs = [
            {"qa_id": 100 * number + i, "question": q, "answer": a}
            for i, (q, a) in enumerate(QAS)
        ]
        rows.append({"id": number, "qas": pairs})
        coco = 50 + number if number < 5 else None
        data.append({"image_id": number, "coco_id": coco})
    write_json(root / "question_answers.json", rows)
    write_json(root / "image_data.json", data)
    monkeypatch.setattr(
        "keras_bridgetower.data.datasets.vqa.TEST_AND_VAL_SIZE", 3
    )
    return VGQA(root, folder)


def test_visual_genome_keeps_unambiguous_classes(genome):
    assert genome.labels == CLASSES
    for draft in genome.split("train"):
        found = [(s.text, genome.labels[s.labels[0]]) for s in draft.samples]
        assert found == KEPT
        assert all(s.scores == (1.0,) for s in draft.samples)


def test_visual_genome_follows_karpathy(genome):
    def numbers(split, protocol):
        return {
            int(d.key.split("/")[1].split(".")[0])
            for d in genome.split(split, protocol)
        }

    # Picture 4 claims a coco id that Karpathy's file lacks.
    assert numbers("train", "coco") == {0, 1}
    assert numbers("validation", "coco") == {2, 3}
    train, val = numbers("train", "honest"), numbers("validation", "honest")
    # val and test are filled to three each.
    assert (len(numbers("train", "official")), len(val)) == (6, 6)
    assert {0, 1} <= numbers("train", "official")
    assert 0 in train and {2, 3} <= val and not train & val
    # Pictures of val2014 are left out, also if Karpathy's file lacks them.
    left_out = numbers("train", "official") - train
    assert 1 in left_out <= {1, 4} and 4 not in train
