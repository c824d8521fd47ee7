"""Calibration and rejection of photo presets, against closed forms."""

import math

import numpy as np
import pytest
from builders import FASTEST
from photo_world import certainty

import keras_bridgetower as kbt

pytestmark = FASTEST


class Answered:
    """Answers of which three of four are right."""

    def answered(self, split):
        assert split == "validation"
        return list("aaaabbbb"), np.array([[4.0, -9.0]] * 8)

    def are_right(self, asked, logits):
        return np.array([True, True, True, False] * 2)


def test_scores_of_best_answers_become_their_share_of_right_ones():
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_emoji_vqa")
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
