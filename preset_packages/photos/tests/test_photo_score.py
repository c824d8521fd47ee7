"""Scores of photo presets, their calibration and comparisons of fusions."""

import math

import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_drawings.training.emoji import rerank
from keras_bridgetower_photos.training import certainty
from keras_bridgetower_photos.training import claim
from keras_bridgetower_photos.training import claim_tables
from keras_bridgetower_photos.training import floors
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import score

import keras_bridgetower as kbt
from keras_bridgetower.models.exporting import runtime

pytestmark = FASTEST
PRESET = "bridgetower_tiny_emoji_vqa"
TEXTS = ["a red heart", "is it blue?", "a cat", "what color is this animal?"]


def test_kept_states_give_the_answers_and_scores_of_the_verbs():
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (3, 64, 64, 3), dtype="uint8"))
    convert = vqa.preprocessor.image_converter
    states = score.tower_states(vqa.backbone, pictures, convert)
    rows = np.array([2, 0, 1, 2])
    found = score.Judge(vqa, retrieval).judge(TEXTS, states, rows)
    shown = [pictures[row] for row in rows]
    expected = retrieval.score(shown, TEXTS)
    assert np.allclose(found["match"], expected, atol=1e-4)
    told = vqa.answer(shown, TEXTS)
    answers = [vqa.preprocessor.answers[i] for i in found["answers"].argmax(1)]
    assert answers == [best[0][0] for best in told]


def test_a_better_order_raises_the_scores():
    fits = np.eye(12, dtype=bool)[:8]
    listed = np.tile(np.arange(12), (8, 1))
    lists = score.list_scores(fits, listed, fits.astype(float))
    found = rerank.compare(*lists)
    assert abs(found["R@1"]["by vectors"] - 1 / 8) <= 0.005
    assert found["R@1"]["re-ranked"] == found["nDCG@10"]["re-ranked"] == 1
    low, _ = found["R@1"]["95 % interval"].split(" to ")
    assert float(low) > 0


class Answered:
    """Answers of which three of four are right."""

    def answered(self, split):
        assert split == "validation"
        return list("aaaabbbb"), np.array([[4.0, -9.0]] * 8)

    def are_right(self, asked, logits):
        return np.array([True, True, True, False] * 2)


def test_scores_of_best_answers_become_their_share_of_right_ones():
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    head = vqa.heads["vqa"].output_dense
    before = np.array(head.kernel)
    found = certainty.calibrate(vqa, Answered())
    # sigmoid(4 / T) = 3 / 4.
    assert found["temperature"] == pytest.approx(4 / math.log(3), rel=1e-6)
    assert np.allclose(head.kernel, before / found["temperature"], rtol=1e-5)
    own = np.logaddexp(math.log(3), -9 / 4 * math.log(3))
    assert vqa.rejection["threshold"] == pytest.approx(own)
    assert vqa.rejection["kind"] == "energy"


def test_area_is_the_share_of_pairs_in_order():
    known, others = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert certainty.area(known, others) == pytest.approx(4.5 / 6, abs=5e-4)


# From the best on, 1, 1, 1, 3/4, 4/5 and 4/6 are right.
@pytest.mark.parametrize(
    "share, least, wanted", [(0.75, 2, 0.5), (0.9, 2, 0.7), (0.75, 6, 1.0)]
)
def test_floors_are_the_lowest_with_a_share_of_right_answers(
    share, least, wanted
):
    scores = np.array([0.5, 0.9, 0.6, 0.8, 0.7, 0.4])
    right = np.array([True, True, False, True, True, False])
    assert floors.floor_for(scores, right, share, least) == wanted


# The sort of each kind of question of the world.
SORTS = {
    "judge": ("is this", "is there", "is color"),
    "judge order": ("is left", "is larger"),
    "judge number": ("is count",),
    "choose": ("broad",),
    "color": ("color", "color of paper"),
    "how many": ("count",),
    "where": ("position",),
    "one of two": ("larger",),
    "what": ("noun of one", "noun of several", "noun by place", "kind"),
}
SLOTS = {
    **{"ref": "the owl", "broad": "animal", "broads": "animals"},
    **{"kind": "bird", "kinds": "birds", "on": "on the left", "c": "red"},
    **{"options": "an animal or food", "a": "an owl", "b": "the fox"},
    **{"ns": "owls", "n": "two", "side": "left"},
}


def test_questions_are_sorted_by_their_words():
    table = floors.table([], {"lake"}, floors.words_of(["An owl?"]))
    assert table["words"] == "an owl"
    wrong = []
    for sort, ways in SORTS.items():
        for wording in sum((questions.WAYS[way] for way in ways), []):
            text = wording.format(**SLOTS)
            for polite in ("{q}", *questions.WAYS["please"]):
                polite = polite.format(q=text).capitalize()
                found, _ = runtime.read_question(polite, **table)
                wrong += [(polite, sort)] if found["name"] != sort else []
    # Without a word order that the table knows.
    assert {sort for _, sort in wrong} <= {"judge", "judge order"}
    assert len(wrong) <= 30, wrong


def test_floors_of_a_preset_keep_a_share_right():
    """Of what is still known; the answers are those that fit."""
    answers = ["yes", "no", "owl", "lake"]
    table = floors.table(answers, {"lake"}, "is this an owl what where it")
    rule = {"kind": "energy", "threshold": -99.0, "questions": table}
    rng = np.random.default_rng(0)
    asked, logits = [], []
    for _ in range(400):
        certain = rng.uniform(0.05, 1)
        text = ("is this an owl?", "what is this?")[int(rng.integers(2))]
        right = "yes" if text[0] == "i" else "owl"
        if rng.random() > certain:
            right = "no"
        asked.append(questions.Question(text, right, ""))
        row = np.full(4, -9.0)
        row[[0, 2]] = np.log(certain / (1 - certain))
        # It would be best, and fits none of them.
        row[3] = 9.0 if text[0] == "i" else -9.0
        logits.append(row)
    logits = np.array(logits, "float32")
    rule = floors.with_floors(rule, answers, asked, logits)
    texts = [question.text for question in asked]
    found = runtime.best_answers(rule, answers, logits, texts)
    assert {pairs[0][0] for pairs, _ in found} == {"yes", "owl"}
    for start in ("is", "what"):
        right = [
            question.is_right(pairs[0][0])
            for question, (pairs, known) in zip(asked, found, strict=True)
            if known and question.text.startswith(start)
        ]
        assert len(right) > 20 and np.mean(right) >= floors.SHARE
    assert rule["questions"]["share"] == 1
    [(_, known)] = runtime.best_answers(
        rule, answers, logits[-1:], ["was ist das?"]
    )
    assert known is False


def test_fusions_have_equal_weights(monkeypatch):
    monkeypatch.setattr(model, "FUSION", model.FUSION | tiny_photos.FUSION)
    tokenizer = tiny_photos.tokenizer()
    encoders = tiny_photos.encoders(tokenizer.vocabulary_size())
    tasks = model.new_tasks(*encoders, tokenizer, ["yes"], None)
    changed, weights = claim.equal_variants(tasks[1].backbone)
    assert [*changed] == ["METER", "BridgeTower", "ManagerTower"]
    for name, changes in changed.items():
        of = model.new_tasks(*encoders, tokenizer, ["yes"], None, **changes)[1]
        assert of.backbone.fusion.count_params() == weights[name]
        assert abs(weights[name] / weights["BridgeTower"] - 1) < 0.01


def test_interval_of_a_difference_is_that_of_its_scenes():
    rng = np.random.default_rng(0)
    scenes = np.sort(rng.integers(300, size=1500))
    # Questions of one scene are right or wrong together.
    shift = rng.normal(0.1, 0.2, 300)[scenes]
    before, after = {}, {}
    for seed in range(2):
        first = rng.random(1500)
        second = first + shift + rng.normal(0, 0.01, 1500)
        texts = {name: rng.random(40) for name in claim_tables.SCORES[1:]}
        before[seed] = {"VQA": first, "scene": scenes} | texts
        after[seed] = {"VQA": second, "scene": scenes} | texts
    found = claim_tables.differences(before, after)
    change = np.mean([after[i]["VQA"] - before[i]["VQA"] for i in (0, 1)], 0)
    mean = change.mean()
    sums = np.bincount(scenes, change - mean)
    deviation = np.sqrt((sums**2).sum()) / 1500
    wanted = 100 * (mean + np.array([-1.96, 1.96]) * deviation)
    assert found["VQA"]["difference"] == pytest.approx(100 * mean)
    np.testing.assert_allclose(found["VQA"]["interval"], wanted, atol=0.15)
    # As if all questions were independent, it would be half as wide.
    assert 1.96 * change.std() / 1500**0.5 < 0.6 * 1.96 * deviation
    assert found["R@1, named"]["interval"] == [0, 0]
