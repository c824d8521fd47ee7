"""Readers on miniatures of every original format."""

import io
import os

import numpy as np
import pytest
from builders import ONE_BACKEND
from miniature_captions import KARPATHY
from miniature_pictures import pictures
from miniatures import WRITERS
from miniatures import built
from miniatures import opened
from PIL import Image

from keras_bridgetower.data.datasets.by_name import DATASETS
from keras_bridgetower.data.datasets.by_name import open_dataset

pytest.importorskip("easy_vqa")
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
    "arrow_coco": [(14, 56), (4, 20), (6, 30)],
    "arrow_visual_genome": [(24, 97)],
    "arrow_cc3m": [(18, 72), (6, 25)],
    "arrow_sbu": [(24, 97)],
    "arrow_snli_ve": [(12, 24), (6, 12), (6, 12)],
    "arrow_nlvr2": [(6, 12), (3, 6), (3, 6)],
}
SPLITS = ("train", "validation", "test")


def test_every_data_set_has_a_miniature():
    assert set(WRITERS) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_check_and_build(name, tmp_path):
    data = opened(name, tmp_path / "originals")
    reports = data.check()
    assert all(report.ok for report in reports), reports
    printed = "\n".join(map(str, reports))
    assert "good" in printed and "MISSING" not in printed
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
            for image in record.images:
                Image.open(io.BytesIO(image)).load()
        assert sum(reader.sources.values()) == reader.num_samples
    assert "official" in data.protocols


def test_definitions_name_leaks():
    def leaking(protocol):
        return {
            (name, split)
            for name, data in DATASETS.items()
            for split, of in data.protocols.get(protocol, {}).items()
            if "LEAKS" in of.definition
        }

    assert {name for name, _ in leaking("official")} == {
        *("coco", "flickr30k", "vqav2", "cifar10", "cifar100"),
        *("arrow_coco", "arrow_flickr30k", "arrow_vqav2"),
    }
    # Its tables lack the validation pictures of other data sets.
    assert leaking("honest") == {("arrow_vgqa", "train")}


@pytest.mark.parametrize("name", ["coco", "flickr30k"])
def test_official_captions_validate_on_test(name, tmp_path):
    data = opened(name, tmp_path)
    chosen = data.split("validation", "official")
    assert chosen == data.split("test", "official")
    train = {d.key for d in data.split("train", "official")}
    honest = {d.key for d in data.split("validation")}
    # Flickr30K's validation pictures are trained on, COCO's are unused.
    assert (honest <= train) == (name == "flickr30k")
    assert not train & {d.key for d in chosen}
    # Distinct captions of six pictures, of which the last has one more.
    assert sum(len(d.samples) for d in chosen) == 6 * 4 + 1


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
    assert KARPATHY.count("train") == 10


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


def test_arrow_questions(tmp_path):
    data = opened("arrow_vqav2", tmp_path)
    assert data.labels[:3] == ["no", "yes", "circle"]
    sample = data.split("train")[0].samples[0]
    answer = dict(pictures()[0].questions)[sample.text]
    assert sample.labels == (["no", "yes"].index(answer), 2)
    assert sample.scores == (1.0, 0.9)
    # A test table, whose columns of answers are of another type.
    assert data.split("test")[0].samples[0].labels == ()
    assert data.split("test")[0].source == "vqav2_test"
    missing = data.check("official_as_typed", ["train"])[0]
    assert missing.missing == ["vqav2_train.arrow or vqav2_train_0.arrow"]
    with pytest.raises(ValueError, match="must hold vqav2_train.arrow"):
        data.split("train", "official_as_typed")


def test_damaged_arrow_files_are_rejected(tmp_path):
    data = opened("arrow_sbu", tmp_path)
    assert len(data.split("train")) == 24
    path = tmp_path / "sbu_1.arrow"
    cut = tmp_path / "cut" / "sbu_0.arrow"
    cut.parent.mkdir()
    cut.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="sbu_0.arrow must be a file in Arrow"):
        open_dataset("arrow_sbu", cut.parent).split("train")
    cut.write_bytes(path.read_bytes())
    other = open_dataset("arrow_vqav2", cut.parent)
    cut.rename(cut.parent / "vqav2_train_fix.arrow")
    with pytest.raises(ValueError, match="must have the columns.*'questions'"):
        other.split("train")
