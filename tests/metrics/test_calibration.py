"""Calibration against closed forms and sums by hand."""

import math

import numpy as np
import pytest
from builders import ONE_BACKEND

from keras_bridgetower import metrics

pytestmark = ONE_BACKEND

RNG = np.random.default_rng(0)


def test_a_temperature_in_closed_form():
    # Three of four are right: the softmax of 2 / T must be 3/4.
    logits, labels = np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    expected = 2 / math.log(3)
    found = metrics.fit_temperature(logits, labels)
    assert found == pytest.approx(expected, rel=1e-12)
    # A sigmoid of one logit; soft labels have the same mean.
    for scores in ([1, 1, 1, 0], [0.75] * 4):
        scores = np.array(scores)[:, None]
        found = metrics.fit_temperature(logits[:, :1], scores)
        assert found == pytest.approx(expected, rel=1e-12)


def test_temperatures_end_at_their_limits():
    logits = np.array([[3.0, -1.0], [-800.0, 900.0]])
    assert metrics.fit_temperature(logits, [0, 1]) == pytest.approx(0.01)
    assert metrics.fit_temperature(logits, [1, 0]) == pytest.approx(100)
    right = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.fit_temperature(logits, right) == pytest.approx(0.01)


def test_values_that_do_not_fit_are_rejected():
    for logits, labels in (
        *(([[1.0, 2.0]], labels) for labels in ([2], [0.5], [0, 1], [[0, 2]])),
        ([[1.0, np.nan]], [0]),
        (np.zeros((0, 2)), np.zeros(0, int)),
    ):
        with pytest.raises(ValueError, match="`logits` must be finite"):
            metrics.fit_temperature(logits, labels)
    for scores, right in (([], []), ([0.5], [1, 0]), ([1.5], [1])):
        with pytest.raises(ValueError, match="numbers in 0..1"):
            metrics.expected_calibration_error(scores, right)
    for scores in ([], [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="`scores` must be"):
            metrics.threshold_for(scores)


def test_calibration_error_by_hand():
    scores = [0.1, 0.2, 0.2, 0.95, 1.0]
    right = [0, 1, 0, 1, 1]
    # Bins of 0.2, with their upper ends: (0.5 - 1) / 5 and (1.95 - 2) / 5.
    error = metrics.expected_calibration_error(scores, right, bins=5)
    assert error == pytest.approx((0.5 + 0.05) / 5)
    assert metrics.expected_calibration_error([0, 1], [False, True]) == 0


def test_energy():
    logits = np.log([[1.0, 2.0, 5.0], [0.5, 0.25, 0.25]])
    assert metrics.energy(logits) == pytest.approx([-math.log(8), 0])
    # No overflow, also in half precision.
    assert metrics.energy(np.float16([[6e4, 6e4]])) == pytest.approx(
        -6e4 - math.log(2), rel=1e-3
    )


@pytest.mark.parametrize("count", [1, 2, 19, 20])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1])
def test_thresholds_keep_their_share(count, share):
    scores = RNG.permutation(count) * 1.5
    threshold = metrics.threshold_for(scores, share)
    assert (scores >= threshold).mean() >= share
    # The next higher one would keep fewer.
    assert (scores > threshold).mean() < share
