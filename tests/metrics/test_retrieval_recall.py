"""Recall against closed forms and a slow version."""

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from keras import ops

from keras_bridgetower.metrics import retrieval
from keras_bridgetower.metrics.retrieval import retrieval_recall

pytestmark = LONG_ELSEWHERE


def slow_recall(scores, owner, k):
    """Sort every query, with ties before the correct item."""

    def found(values, right):
        order = sorted(range(len(values)), key=lambda i: (-values[i], right[i]))
        return any(right[i] for i in order[:k])

    right = owner == np.arange(len(scores))[:, None]
    ir = [found(*column) for column in zip(scores.T, right.T, strict=True)]
    tr = [found(*row) for row in zip(scores, right, strict=True)]
    return 100 * np.mean(ir), 100 * np.mean(tr)


@pytest.mark.parametrize("levels", [3, None])
@pytest.mark.parametrize("block", [100, 10**6])
def test_recall_equals_a_slow_version(levels, block, monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    rng = np.random.default_rng(0)
    # One to five texts for each image, in no order.
    owner = rng.permutation(np.repeat(np.arange(30), rng.integers(1, 6, 30)))
    scores = rng.random((30, len(owner))).astype("float32")
    if levels:
        scores = np.floor(scores * levels)
    report = retrieval_recall(scores, owner, ks=(1, 2, 5, 10, 300))
    for k in (1, 2, 5, 10, 300):
        found = report.recalls[f"IR@{k}"], report.recalls[f"TR@{k}"]
        assert found == pytest.approx(slow_recall(scores, owner, k))


def test_recall_of_known_scores():
    owner = np.repeat(np.arange(20), 5)
    perfect = (owner == np.arange(20)[:, None]).astype("float32")
    report = retrieval_recall(perfect, owner, split="toy")
    assert set(report.recalls.values()) == {100.0}
    assert "split: toy, 20 images, 100 texts\nIR@1 100.00, " in str(report)
    # A constant model finds nothing, not even by scores of -infinity.
    for constant in (0, -np.inf):
        assert retrieval_recall(np.full((20, 100), constant), owner).rsum == 0
    # Each text prefers the next image: found second by texts; each image has
    # five false texts before its own.
    shifted = perfect + 2 * np.roll(perfect, 1, axis=0)
    recalls = retrieval_recall(shifted, owner).recalls
    assert recalls == {
        **{"IR@1": 0, "IR@5": 100, "IR@10": 100},
        **{"TR@1": 0, "TR@5": 0, "TR@10": 100},
    }
    report = retrieval_recall(shifted, owner)
    assert (report.ir_mean, report.tr_mean) == pytest.approx((200 / 3, 100 / 3))
    assert (report.r_mean, report.rsum) == pytest.approx((50, 300))


def test_recall_of_ids_tensors_and_integers():
    scores = np.array([[3, 1, 2], [0, 5, 4]])
    expected = {"IR@1": 200 / 3, "TR@1": 100.0}
    for given in (scores, ops.convert_to_tensor(scores)):
        report = retrieval_recall(given, ["b", "a", "b"], ["b", "a"], ks=(1,))
        assert report.recalls == pytest.approx(expected)


def test_recall_by_folds():
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(12), 3)
    scores = rng.random((12, 36))
    whole = retrieval_recall(scores, owner, ks=(1, 2), folds=3)
    folds = [scores[i : i + 4, 3 * i : 3 * i + 12] for i in (0, 4, 8)]
    parts = [retrieval_recall(fold, owner[:12], ks=(1, 2)) for fold in folds]
    for name, value in whole.recalls.items():
        assert value == pytest.approx(np.mean([p.recalls[name] for p in parts]))
    assert whole.protocol.endswith("mean of 3 folds")
    assert (whole.images, whole.texts) == (4, 12)


def test_recall_rejects_invalid_input():
    scores, wrong_ids = np.zeros((2, 3)), ([0, 1], [0, 1, 7], [0, 0, 0])
    for change, named in (
        *(({"text_image_ids": ids}, "text_image_ids") for ids in wrong_ids),
        ({"image_ids": [0, 0]}, "image_ids"),
        ({"scores": scores + np.nan}, "scores"),
        ({"ks": (0,)}, "ks"),
        ({"folds": 3}, "folds"),
    ):
        arguments = {"scores": scores, "text_image_ids": [0, 1, 1]} | change
        with pytest.raises(ValueError, match=f"`{named}`"):
            retrieval_recall(**arguments)
