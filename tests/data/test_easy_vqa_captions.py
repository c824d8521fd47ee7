"""Scenes and captions derived from easy-VQA: sizes, truth, blind scores."""

import math

import numpy as np
import pytest
from builders import ONE_BACKEND
from builders import slow_on
from easy_vqa_checks import WORDS
from easy_vqa_checks import blind
from easy_vqa_checks import each
from easy_vqa_checks import tokens
from easy_world import captions
from easy_world import pictures as easy_vqa

from keras_bridgetower.metrics.retrieval import retrieval_recall

pytestmark = ONE_BACKEND


@slow_on("tensorflow")
def test_scenes(scenes):
    sizes = {split: len(s.values) for split, s in scenes.items()}
    assert sizes == {"train": 3500, "validation": 500, "test": 1000}
    distinct = {s: set(found.groups) for s, found in scenes.items()}
    assert len(distinct["train"] | distinct["validation"]) == 618
    assert (len(distinct["validation"]), len(distinct["test"])) == (312, 459)
    for found in scenes.values():
        for picture in range(0, len(found.values), 10):
            words = found.words(picture)
            item = easy_vqa.attributes(found.data.images[picture])
            assert [words["shape"], words["colour"]] == [
                item.shape,
                item.colour,
            ]
            assert WORDS.keys() >= set(words.values())
            # North is up, west is left; sizes follow the pixels.
            top, left, bottom, right = item.box
            position = words["position"]
            assert "north" not in position or top < 22
            assert "west" not in position or left < 22
            assert "south" not in position or bottom > 42
            assert not position.endswith("east") or right > 42
        medians = [
            np.median(found.sides[found.values[:, 2] == size])
            for size in range(3)
        ]
        assert medians[0] < 16 < medians[1] < 25 < medians[2]


def test_gallery(scenes):
    pool, groups = captions.gallery(scenes["test"]), scenes["test"].groups
    assert len(pool.pictures) == len(set(pool.groups)) == 459
    assert len(set(pool.texts)) == len(pool.texts) == 5 * 459
    for picture, group in zip(pool.pictures, pool.groups, strict=True):
        assert np.flatnonzero(groups == group)[0] == picture
    perfect = pool.owner == np.arange(459)[:, None]
    assert retrieval_recall(perfect, pool.owner).rsum == 600


def test_blind_recalls(scenes):
    """Guesses: each picture has five texts, each text one picture."""
    count = len(captions.gallery(scenes["test"]).pictures)
    rsum = 0
    for k in (1, 5, 10):
        # The chance that none of five is among k of all texts.
        missed = math.comb(5 * count - 5, k) / math.comb(5 * count, k)
        rsum += 100 * (k / count + 1 - missed)
    assert rsum == pytest.approx(captions.BLIND_RSUM, abs=0.005)


def test_blanks(scenes):
    built = {s: captions.blanks(found) for s, found in scenes.items()}
    for split, rows in built.items():
        assert len(rows.texts) == 4 * len(scenes[split].values)
        for picture, text, answer, kind in each(
            rows, "image_index", "texts", "answers", "kinds"
        ):
            words = scenes[split].words(picture)
            assert text.count(captions.MASK) == 1
            assert words[kind] == answer and answer not in tokens(text)
    for kind, expected in captions.BLIND_BLANKS.items():
        pairs = []
        for split in ("train", "test"):
            rows = each(built[split], "answers", "kinds")
            answers = [answer for answer, of in rows if of == kind]
            pairs.append(([kind] * len(answers), answers))
        assert blind(*pairs) == pytest.approx(expected, abs=0.051)


def test_texts_of_matches_tell_nothing(scenes):
    built = [captions.matches(scenes[split]) for split in ("train", "test")]
    keys = [(rows.texts, rows.labels.tolist()) for rows in built]
    assert blind(*keys) == pytest.approx(50, abs=3)
