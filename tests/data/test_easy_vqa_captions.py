"""Scenes and captions derived from easy-VQA: sizes, truth, blind scores."""

import collections
import json
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
from easy_world import scenes as easy_vqa_scenes

from keras_bridgetower.metrics.retrieval import retrieval_recall
from keras_bridgetower.metrics.vqa import evaluate_vqa
from keras_bridgetower.metrics.vqa import write_vqa_results

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
            # Soft edges reach furthest at the tip of a triangle.
            side = max(bottom - top, right - left)
            assert 0 <= side - found.sides[picture] <= 4
            # Sides are drawn from 8 to 32, less the tips; sizes follow them.
            assert 7 <= found.sides[picture] <= 33
        medians = [
            np.median(found.sides[found.values[:, 2] == size])
            for size in range(3)
        ]
        assert medians[0] < 16 < medians[1] < 25 < medians[2]


def test_every_caption_names_what_is_shown(scenes):
    found = scenes["test"]
    built = captions.captions(found)
    assert len(built.texts) == len(built.owner) == 5 * len(found.values)
    for text, owner in zip(built.texts, built.owner, strict=True):
        words = found.words(built.pictures[owner])
        named = [word for word in tokens(text) if word in WORDS]
        assert sorted(named) == sorted(words.values())
        assert 4 <= len(tokens(text)) <= 15
    assert len(set(built.texts)) == 5 * len(set(found.groups))
    np.testing.assert_array_equal(built.groups, found.groups)


@pytest.mark.parametrize(
    "split, pictures", [("train", 613), ("validation", 312), ("test", 459)]
)
def test_gallery(scenes, split, pictures):
    pool = captions.gallery(scenes[split])
    assert len(pool.pictures) == len(set(pool.groups)) == pictures
    assert len(set(pool.texts)) == len(pool.texts) == 5 * pictures
    groups = scenes[split].groups
    for picture, group in zip(pool.pictures, pool.groups, strict=True):
        assert np.flatnonzero(groups == group)[0] == picture
    perfect = pool.owner == np.arange(pictures)[:, None]
    assert retrieval_recall(perfect, pool.owner).rsum == 600


@pytest.mark.parametrize("known", captions.RETRIEVAL_LADDER)
def test_retrieval_ladder(scenes, known):
    """Expected recall of guessing among pictures that look alike."""
    pool = captions.gallery(scenes["test"])
    columns = [list(easy_vqa_scenes.ATTRIBUTES).index(name) for name in known]
    seen = scenes["test"].values[pool.pictures][:, columns]
    alike = collections.Counter(map(tuple, seen.tolist()))
    rsum = 0
    for k in (1, 5, 10):
        for group in alike.values():
            share = 100 * group / len(pool.pictures)
            rsum += share * min(1, k / group)
            # The chance that none of five is among k of the group's texts.
            draws = min(k, 5 * group)
            missed = math.comb(5 * group - 5, draws)
            rsum += share * (1 - missed / math.comb(5 * group, draws))
    expected = captions.RETRIEVAL_LADDER[known]
    assert rsum == pytest.approx(expected, abs=0.005 if not known else 0.5)


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


def test_matches(scenes):
    built = {s: captions.matches(found) for s, found in scenes.items()}
    for split, rows in built.items():
        found = scenes[split]
        counts = {0: collections.Counter(), 1: collections.Counter()}
        for i in range(0, len(rows.texts), 2):
            assert rows.labels[i : i + 2].tolist() == [1, 0]
            assert rows.image_index[i] == rows.image_index[i + 1] == i // 2
            words = set(found.words(i // 2).values())
            true, false = map(tokens, rows.texts[i : i + 2])
            both = zip(true, false, strict=True)
            [(right, wrong)] = [(a, b) for a, b in both if a != b]
            assert right in words and WORDS[right] == WORDS[wrong]
            assert words <= set(true)
            counts[1].update(true)
            counts[0].update(false)
        # No word tells true from false.
        assert counts[0] == counts[1]
    keys = [
        (built[s].texts, built[s].labels.tolist()) for s in ("train", "test")
    ]
    assert blind(*keys) == pytest.approx(50, abs=3)


def test_vqa_files_and_the_official_evaluator(scenes, tmp_path):
    """The blind score of easy-VQA once more, by way of VQAv2's files."""
    test = scenes["test"].data
    rows = [
        {
            "question_id": row,
            "image_id": int(image),
            "question": question,
            "question_type": " ".join(question.split()[:2]),
            "answer_type": "yes/no" if answer in ("yes", "no") else "other",
            "multiple_choice_answer": answer,
            "answers": [{"answer": answer, "answer_id": i} for i in range(10)],
        }
        for row, (image, question, answer) in enumerate(
            each(test, "image_index", "questions", "answers")
        )
    ]
    for name in ("questions", "annotations"):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: rows}))
    votes = collections.defaultdict(collections.Counter)
    for split in ("train", "validation"):
        for question, answer in each(
            scenes[split].data, "questions", "answers"
        ):
            votes[question][answer] += 1
    results = tmp_path / "results.json"
    write_vqa_results(
        results,
        range(len(test.questions)),
        [votes[q].most_common(1)[0][0] for q in test.questions],
        questions=tmp_path / "questions.json",
    )
    annotations = tmp_path / "annotations.json"
    report = evaluate_vqa(annotations, results, split="easy-VQA test")
    scores = easy_vqa.BLIND_TEST_SCORES
    found = {"overall": report.overall, **report.per_answer_type}
    wanted = {name: scores[name] for name in ("overall", "yes/no")}
    assert found == pytest.approx({**wanted, "other": 23.30}, abs=0.011)
