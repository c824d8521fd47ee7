"""The scores of a list before and after matching, against other libraries."""

import numpy as np
import pytest
from keras_bridgetower_drawings.training.emoji import rerank

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
