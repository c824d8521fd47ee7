"""NLVR2, masked tokens and GLUE metrics against closed forms."""

import keras
import numpy as np
import pytest
from builders import ONE_BACKEND
from builders import slow_on

from keras_bridgetower.metrics import classification
from keras_bridgetower.metrics.classification import evaluate_nlvr2
from keras_bridgetower.metrics.keras_metrics import MaskedTokenAccuracy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4, 9)).astype("float32")
IDS = np.where(RNG.random((6, 4)) < 0.5, LOGITS.argmax(-1), 3).astype("int32")
WEIGHTS = (RNG.random((6, 4)) < 0.6).astype("float32")
HITS = LOGITS.argmax(-1) == IDS


@slow_on("jax")
def test_masked_token_accuracy_over_batches():
    """The mean is over all tokens, whatever the batches."""
    expected = HITS[WEIGHTS == 1].mean()
    ignored = np.where(WEIGHTS == 1, IDS, -100)
    for labels, weights in ((IDS, WEIGHTS), (ignored, [None] * 6)):
        metric = MaskedTokenAccuracy()
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
            given = None if weights[0] is None else weights[rows]
            metric.update_state(labels[rows], LOGITS[rows], given)
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
        metric.reset_state()
        assert float(metric.result()) == 0
    # Weights and ignored labels count together, and (batch,) is allowed.
    metric.update_state(ignored, LOGITS, np.arange(6, dtype="float32"))
    weight = WEIGHTS * np.arange(6)[:, None]
    expected = (HITS * weight).sum() / weight.sum()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_masked_token_accuracy_of_another_id_and_of_wrong_labels():
    metric = MaskedTokenAccuracy(ignore_id=0)
    metric.update_state([[0, 3]], np.eye(9)[None, [0, 3]])
    assert float(metric.result()) == 1.0
    for labels in (IDS[:, :1], IDS[:1], IDS[:, 0]):
        with pytest.raises(ValueError, match="`y_true` must hold token ids"):
            metric.update_state(labels, LOGITS)


@ONE_BACKEND
def test_nlvr2_report():
    names = [f"dev-{s}-{p}-{t}" for s in (0, 1) for p in (0, 1) for t in (0, 1)]
    labels = ["True", "False"] * 4
    predictions = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    report = evaluate_nlvr2(names, labels, predictions)
    # Sentence dev-0-1 fails at its second pair, dev-1-0 at its first.
    assert (report.accuracy, report.consistency) == (75.0, 50.0)
    assert (report.examples, report.sentences) == (8, 4)
    assert "split: dev, 8 examples, 4 sentences" in str(report)
    named = evaluate_nlvr2(names, labels, predictions, "minidev")
    assert named.split == "minidev"
    # The name of a split may hold hyphens itself.
    other = [name.replace("dev", "my-dev") for name in names]
    assert evaluate_nlvr2(other, labels, predictions).split == "my-dev"
    for wrong, given, message in (
        (["dev-0-0-0"] * 2, [0, 1], "`identifiers`"),
        (["dev-0-0"], [0], "`identifiers`"),
        (["dev-0-0-0"], [0, 1], "zip"),
        (["dev-0-0-0"], ["yes"], "`labels`"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_nlvr2(wrong, given, [0] * len(given))


@ONE_BACKEND
def test_matthews_and_f1_equal_their_formulas():
    pytest.importorskip("sklearn")
    labels, given = np.array([1, 1, 1, 0, 0, 0, 0, 1]), [1, 1, 0, 0, 0, 1, 0, 1]
    tp, tn, fp, fn = 3, 3, 1, 1
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    matthews = (tp * tn - fp * fn) / np.sqrt(product)
    found = classification.matthews_correlation(labels, given)
    assert found == pytest.approx(matthews)
    f1 = classification.f1_score(labels, given)
    assert f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert classification.f1_score([0, 0], [0, 0]) == 0
    assert isinstance(f1, float)


def test_spearman_equals_its_formula():
    pytest.importorskip("scipy")
    labels, given = RNG.random((2, 20))
    ranks = [np.argsort(np.argsort(x)) for x in (labels, given)]
    expected = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum() / (20 * (400 - 1))
    tensor = keras.ops.convert_to_tensor(labels)
    found = classification.spearman_correlation(tensor, given)
    assert found == pytest.approx(expected, abs=1e-6)
