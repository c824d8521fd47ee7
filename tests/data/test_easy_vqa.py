"""easy-VQA: sizes, splits, and attributes that agree with every answer."""

import collections

import numpy as np
import pytest
from builders import ONE_BACKEND
from easy_vqa_checks import blind
from easy_world import pictures

pytestmark = ONE_BACKEND
pytest.importorskip("easy_vqa")


@pytest.fixture(scope="module")
def splits():
    return {s: pictures.load(s) for s in ("train", "validation", "test")}


def test_sizes(splits):
    images = {name: len(s.images) for name, s in splits.items()}
    assert images == {"train": 3500, "validation": 500, "test": 1000}
    questions = {name: len(s.questions) for name, s in splits.items()}
    assert questions["test"] == 9_673
    assert questions["train"] + questions["validation"] == 38_575
    for split in splits.values():
        assert split.images.shape[1:] == (64, 64, 3)
        assert split.images.dtype == np.uint8
        assert set(split.image_index) == set(range(len(split.images)))
        assert set(split.answers) <= set(pictures.answer_list())
    kinds = map(pictures.question_kind, splits["test"].answers)
    assert collections.Counter(kinds) == {
        "yes/no": 7136,
        "shape": 1257,
        "colour": 1280,
    }


def test_no_picture_is_in_two_splits(splits):
    seen = [{i.tobytes() for i in s.images} for s in splits.values()]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 5000


def test_blind_scores(splits):
    """The majority answer to each question, counted on all of training."""
    train = [
        [*getattr(splits["train"], name), *getattr(splits["validation"], name)]
        for name in ("questions", "answers")
    ]
    test = splits["test"]
    kinds = np.array([pictures.question_kind(a) for a in test.answers])
    for kind, score in pictures.BLIND_TEST_SCORES.items():
        here = np.ones(len(kinds), bool) if kind == "overall" else kinds == kind
        rows = [np.array(of)[here] for of in (test.questions, test.answers)]
        assert blind(train, rows) == pytest.approx(score, abs=0.011)


def test_attributes_agree_with_every_answer(splits):
    for split in splits.values():
        found = [pictures.attributes(image) for image in split.images]
        for index, question, answer in zip(
            split.image_index, split.questions, split.answers, strict=True
        ):
            item = found[index]
            kind = pictures.question_kind(answer)
            if kind == "shape":
                assert answer == item.shape
            elif kind == "colour":
                assert answer == item.colour
            else:
                words = set(question.rstrip("?").split())
                pairs = words & {*pictures.SHAPES, *pictures.COLOURS}
                there = pairs <= {item.shape, item.colour}
                negated = bool(words & {"not", "no"})
                assert answer == ("yes" if there != negated else "no")
