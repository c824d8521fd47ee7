"""Readers on miniatures of every original format."""

import io
import os

import numpy as np
import pytest
from builders import ONE_BACKEND
from miniature_originals import GLUE
from miniature_pictures import pictures
from miniature_pictures import write_lines
from miniatures import IN_TABLES
from miniatures import OF_TABLES
from miniatures import built
from miniatures import miniature
from miniatures import opened
from PIL import Image

from keras_bridgetower.data.datasets.by_name import DATASETS
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.stream.stream import Stream

pytestmark = ONE_BACKEND

# Records and samples of train, validation and test, counted by hand from what
# is written: 24 pictures; of five captions four are distinct, the last picture
# has six.
SIZES = {
    "coco": [(14, 56), (4, 20), (6, 30)],
    "flickr30k": [(14, 56), (4, 20), (6, 30)],
    "visual_genome": [(24, 48)],
    "cc3m": [(12, 12), (4, 4)],
    "sbu": [(23, 24)],
    "snli_ve": [(12, 36), (6, 18), (6, 18)],
    "nlvr2": [(6, 12), (3, 6), (3, 6)],
    "cifar10": [(10, 10), (10, 10), (4, 4)],
    "cifar100": [(10, 10), (10, 10), (4, 4)],
    "glue": [(12, 12), (4, 4), (1, 1)],
    "cc3m_annot": [(18, 18), (6, 6)],
    "sbu_annot": [(24, 24)],
}
SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("name", [n for n in DATASETS if OF_TABLES not in n])
def test_check_and_build(name, tmp_path):
    data = opened(name, tmp_path / "originals")
    reports = data.check()
    assert all(report.ok for report in reports), reports
    sizes = dict(zip(SPLITS, SIZES.get(name, ()), strict=False))
    assert {*sizes} <= {*data.protocols["honest"]}
    for of in data.protocols["honest"]:
        reader = built(data, tmp_path / "built", of)
        size = reader.num_records, reader.num_samples
        assert size == sizes.get(of, size), of
        drafts = {draft.key: draft for draft in data.split(of)}
        for number in range(reader.num_records):
            record = reader.record(number)
            draft = drafts[record.key]
            assert record.images == draft.read().images
            assert [s.text for s in record.samples] == [
                s.text for s in draft.samples
            ]
        assert sum(reader.sources.values()) == reader.num_samples
    assert "official" in data.protocols
    if name == "own":
        # A single table is divided by pictures.
        keys = [{draft.key for draft in data.split(of)} for of in SPLITS]
        assert all(keys) and sum(map(len, keys)) == len(set.union(*keys)) == 24


def test_coco(tmp_path):
    drafts = opened("coco", tmp_path).split("train")
    assert [d.key for d in drafts[9:11]] == [
        "COCO_train2014_000000000009.jpg",
        "COCO_val2014_000000000010.jpg",
    ]
    assert [d.source for d in drafts[9:11]] == [
        "coco_caption_karpathy_train",
        "coco_caption_karpathy_restval",
    ]
    # Ids are Karpathy's; the third caption repeats the first.
    assert [s.id for s in drafts[2].samples] == ["200", "201", "203", "204"]
    assert drafts[2].read().images == (pictures()[2].encoded(),)


def test_missing_web_pictures_are_left_out(tmp_path):
    drafts = opened("cc3m", tmp_path / "cc3m").split("train")
    assert [d.samples[0].id for d in drafts[:4]] == ["1", "2", "4", "5"]
    # An odd quote is a letter like any other.
    assert drafts[0].samples[0].text == f'"{pictures()[1].caption}'
    assert drafts[0].read().images == (pictures()[1].encoded("PNG"),)
    drafts = opened("sbu", tmp_path / "sbu").split("train")
    assert "23_7b.jpg" not in {d.key for d in drafts}
    assert [s.text for s in drafts[3].samples] == [
        pictures()[3].caption,
        "once more",
    ]


def test_snli_ve(tmp_path):
    data = opened("snli_ve", tmp_path)
    assert data.labels == ["contradiction", "neutral", "entailment"]
    for of, first in (("train", 0), ("validation", 12), ("test", 18)):
        drafts = data.split(of)
        # Both spellings of the key give the same names.
        assert drafts[0].key == str(first)
        assert [s.labels for s in drafts[0].samples] == [(2,), (0,), (1,)]
        # Only the hypothesis, stripped.
        colour = pictures()[first].colour
        assert drafts[0].samples[0].text == f"The shape is {colour}."


def test_nlvr2(tmp_path):
    data = opened("nlvr2", tmp_path)
    draft = data.split("train")[1]
    assert draft.key == "train-2-1"
    assert os.sep + os.path.join("train", "2", "") in draft.pictures[0].path
    left, right = draft.read().images
    assert left.startswith(b"\xff\xd8") and right.startswith(b"\x89PNG")
    assert draft.pictures[0].path.endswith("-img0.png")
    first, second = draft.samples
    assert (first.id, second.id) == ("train-2-1-0", "train-2-1-1")
    same = pictures()[2].colour == pictures()[3].colour
    assert first.labels == (int(same),) and second.labels == (1,)
    assert len(data.split("balanced_dev")) == 2


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name, tmp_path):
    data = opened(name, tmp_path)
    drafts = data.split("test")
    for number, draft in enumerate(drafts, 20):
        item = pictures()[number]
        (image,) = draft.read().images
        want = np.asarray(item.image.resize((32, 32)))
        assert np.array_equal(Image.open(io.BytesIO(image)), want)
        assert data.labels[draft.samples[0].labels[0]] == item.colour
    assert drafts == data.split("validation", "official")


@pytest.mark.parametrize("name", IN_TABLES)
def test_arrow_tables_hold_the_same(name, tmp_path):
    data = opened(f"arrow_{name}", tmp_path)
    wanted = opened(name, tmp_path / "again")
    assert data.labels == wanted.labels
    assert all(report.ok for report in data.check())
    for split in data.protocols["official"]:
        pairs = zip(
            data.split(split, "official"),
            wanted.split(split, "official"),
            strict=True,
        )
        for found, draft in pairs:
            assert found.read().images == draft.read().images
            for one, other in zip(found.samples, draft.samples, strict=True):
                assert (one.text, one.labels) == (other.text, other.labels)
                assert one.scores == other.scores
                if data.task in ("vqa", "nlvr2"):
                    assert one.id == other.id


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
    # Labels that a user knows are kept.
    write_lines(tmp_path / "test_matched.jsonl", [row | {"label": 1}])
    assert data.split("test_matched")[0].samples[0].labels == (1,)


def test_rows_may_be_short_or_long_outside_the_columns_to_read(tmp_path):
    root, _ = miniature("glue", tmp_path)
    path = root / "RTE/train.tsv"
    rows = '0\ta, "b\tc\tentailment\tmore\n'
    path.write_text(f"index\tsentence1\tsentence2\tlabel\n{rows}")
    data = open_dataset("glue", root, task_name="rte")
    assert data.split("train")[0].samples[0].text == 'a, "b\tc'
    path.write_text(path.read_text() + "1\ta\tc\n")
    with pytest.raises(ValueError):
        data.split("train")


def test_short_rows_of_qqp_are_left_out(tmp_path):
    root, _ = miniature("glue", tmp_path)
    path = root / "QQP/train.tsv"
    lines = path.read_text().splitlines()
    # Ends in its first question; lacks the label.
    lines[3], lines[5] = "0\t1\t2\tIt is", lines[5].rpartition("\t")[0]
    path.write_text("\n".join(lines))
    data = open_dataset("glue", root, task_name="qqp")
    with pytest.warns(UserWarning, match="2 rows of .*train.tsv.*row 3"):
        drafts = data.split("train")
    wanted = [n for n in range(1, 13) if n not in (3, 5)]
    assert [d.key for d in drafts] == [f"train-{n}" for n in wanted]


@pytest.mark.parametrize("score", ["nan", "7", ""])
def test_bad_scores_are_rejected(score, tmp_path):
    root, _ = miniature("glue", tmp_path)
    with open(root / "STS-B/train.tsv", "a") as file:
        file.write(f"1\tnews\tIt is.\tIt was.\t{score}\n")
    with pytest.raises(ValueError):
        open_dataset("glue", root, task_name="stsb").split("train")
