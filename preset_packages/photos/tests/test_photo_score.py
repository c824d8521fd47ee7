"""Scores of photo presets, against the verbs of a shipped preset."""

import numpy as np
import pytest
from builders import FASTEST
from keras_bridgetower_drawings.training.emoji import rerank
from keras_bridgetower_photos.training import score

import keras_bridgetower as kbt

pytestmark = FASTEST
PRESET = "bridgetower_tiny_emoji_vqa"
TEXTS = ["a red heart", "is it blue?", "a cat", "what color is this animal?"]


@pytest.fixture(scope="module")
def tasks():
    return [
        cls.from_preset(PRESET)
        for cls in (kbt.BridgeTowerVQA, kbt.BridgeTowerRetrieval)
    ]


def test_kept_states_give_the_answers_and_scores_of_the_verbs(tasks):
    vqa, retrieval = tasks
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (3, 64, 64, 3), dtype="uint8"))
    convert = vqa.preprocessor.image_converter
    states = score.tower_states(vqa.backbone, pictures, convert)
    rows = np.array([2, 0, 1, 2])
    found = score.Judge(*tasks).judge(TEXTS, states, rows)
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
