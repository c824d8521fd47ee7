"""The temperature of the emoji preset, against a closed form."""

import math

import numpy as np
import pytest
from builders import FASTEST
from keras_bridgetower_drawings.training.emoji import calibrate

import keras_bridgetower as kbt

pytestmark = FASTEST


def test_shares_become_how_often_answers_are_right():
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_emoji_vqa")
    before = np.array(vqa.heads["vqa"].output_dense.bias)
    shares = np.full(8, 1 / (1 + math.exp(-4)))
    right = np.array([True, True, True, False] * 2)
    found = calibrate.calibrate(vqa, shares, right)
    # sigmoid(4 / T) = 3 / 4.
    temperature = 4 / math.log(3)
    assert found["temperature"] == pytest.approx(temperature, abs=1e-3)
    assert found["calibration error before"] == pytest.approx(0.232, abs=1e-3)
    assert found["after"] == 0
    after = np.array(vqa.heads["vqa"].output_dense.bias)
    assert np.allclose(after, before / temperature, rtol=1e-4)
