"""Comparing variants of the fusion: equal weights, intervals of scenes."""

import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_photos.training import claim
from keras_bridgetower_photos.training import claim_tables
from keras_bridgetower_photos.training import fusing
from keras_bridgetower_photos.training import model

pytestmark = FASTEST


def test_fusions_have_equal_weights(monkeypatch):
    monkeypatch.setattr(model, "FUSION", model.FUSION | tiny_photos.FUSION)
    tokenizer = tiny_photos.tokenizer()
    encoders = tiny_photos.encoders(tokenizer.vocabulary_size())

    def new_tasks(**changes):
        return model.new_tasks(*encoders, tokenizer, ["yes"], None, **changes)

    start = new_tasks()[1].backbone
    changed, weights = claim.equal_variants(start)
    assert [*changed] == ["METER", "BridgeTower", "ManagerTower"]
    heads = set()
    for name, changes in changed.items():
        learned = fusing.Fusion(*new_tasks(**changes)).trainable_weights
        learned = sum(np.prod(weight.shape) for weight in learned)
        assert abs(weights[name] / weights["BridgeTower"] - 1) < 0.01
        heads.add(learned - weights[name])
    # All else that learns is the same.
    assert len(heads) == 1


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
