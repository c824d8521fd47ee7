"""The scores of a list before and after matching, against other libraries."""

import numpy as np
import pytest
from emoji_world import rerank

sklearn = pytest.importorskip("sklearn.metrics")


def test_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    pool = 40
    right = rng.random((20, pool)) < 0.15
    right[:, 3] = True  # The ideal list is not empty.
    lists = np.argsort(rng.random(right.shape), 1)
    first = np.take_along_axis(right, lists, 1)[:, : rerank.FIRST]
    scores = np.zeros(right.shape)
    np.put_along_axis(scores, lists, np.arange(pool, 0, -1.0)[None], 1)
    found = rerank.ndcg(first, right.sum(1)).mean()
    assert found == pytest.approx(sklearn.ndcg_score(right, scores, k=10))


def test_interval_of_a_mean_and_of_no_difference():
    rng = np.random.default_rng(1)
    mean, low, high = rerank.interval(rng.normal(0.3, 1.0, 400))
    # That of a normal distribution: 1.96 / 20 on both sides.
    assert low == pytest.approx(mean - 0.098, abs=0.02)
    assert high == pytest.approx(mean + 0.098, abs=0.02)
    assert rerank.interval(np.zeros(10)) == (0.0, 0.0, 0.0)
