"""easy-VQA and what is derived from it: truth, draws, scores of the blind."""

import numpy as np
import pytest
from builders import ONE_BACKEND
from easy_vqa_checks import blind
from easy_vqa_checks import digest
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs as easy_vqa_pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy.meaning import Statement
from keras_bridgetower_drawings.training.easy.meaning import claim
from keras_bridgetower_drawings.training.easy.meaning import judge
from keras_bridgetower_drawings.training.easy.scenes import SPLITS
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from keras_bridgetower_drawings.training.easy.scenes import moved

pytestmark = ONE_BACKEND


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("easy_vqa")
    return {split: load_scenes(split) for split in SPLITS}


def test_blind_scores(scenes):
    """The majority answer to each question, counted on all of training."""
    splits = {split: found.data for split, found in scenes.items()}
    seen = [{i.tobytes() for i in s.images} for s in splits.values()]
    # No picture is in two splits.
    assert len(set.union(*seen)) == sum(map(len, seen)) == 5000
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


def varied_entailment(found):
    return entailment.varied_entailment(found, sentences=300)


def moved_boxes(found):
    shown = moved(found, 3)
    sums = shown.data.images.sum(axis=(1, 2, 3))
    return shown.values, shown.boxes, sums


@pytest.mark.parametrize(
    "make, drawn",
    [
        (captions.captions, "c34216fe"),
        (captions.matches, "a667026f"),
        (captions.blanks, "82e44495"),
        (captions.varied_captions, "f0a853db"),
        (varied_entailment, "2434979d"),
        (entailment.entailment, "de57dd45"),
        (easy_vqa_pairs.pairs, "e98e50df"),
        (moved_boxes, "9abb7dc8"),
    ],
)
def test_the_presets_were_trained_on_these_draws(scenes, make, drawn):
    assert digest(make(scenes["validation"])) == drawn


def test_truth_tables():
    """Kleene's tables of "and" and "not", written out."""
    # A red circle, whose color the veil hides: false, hidden and true claims.
    values = np.array([[1, 2, 0, 4]])
    says = [
        claim("size", "large"),
        claim("colour", "red"),
        claim("shape", "circle"),
    ]

    def truth(*claims, denied=False):
        statement = Statement("", claims, denied)
        return judge(statement, values, "no_colour")

    both = [[0, 0, 0], [0, 1, 1], [0, 1, 2]]
    for left in range(3):
        assert truth(says[left].denied()) == 2 - left
        for right in range(3):
            pair = says[left], says[right]
            assert truth(*pair) == both[left][right]
            assert truth(*pair, denied=True) == 2 - both[left][right]
