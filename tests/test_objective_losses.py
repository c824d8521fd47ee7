"""Losses and their metrics against closed forms."""

import keras
import numpy as np
import pytest
from builders import array
from builders import slow_on
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.models import heads
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import pack_embeddings

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 3, 7)).astype("float32")
# Two, none, three and one masked token.
LABELS = np.array([[3, 6, -100], [-100] * 3, [0, 1, 2], [5, -100, -100]])
IDS = np.array([4, 9, 4, 7, 9])
SCALE = 2.5
VQA_LOGITS = np.array([[2.0, -1.0, 0.5], [-80.0, 80.0, 0.0]], "float32")
VQA_SCORES = np.array([[0.3, 1.0, 0.0], [0.0, 1.0, 0.6]], "float32")
PAIRS = {
    "two_way": [("text", "image"), ("image", "text")],
    "three_way": [("text", "image"), ("text", "fused"), ("image", "fused")],
}


def unit(seed, rows=5, width=6):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")


EMBEDDINGS = {"fused": unit(3), "image": unit(2), "text": unit(1)}


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def token_losses():
    logs = log_softmax(LOGITS.astype("float64"))
    found = -np.take_along_axis(logs, np.maximum(LABELS, 0)[..., None], -1)
    return np.where(LABELS >= 0, found[..., 0], 0)


def contrastive(ways, ids=IDS):
    """Return one value per row, by the formula of the authors."""
    same = (ids[:, None] == ids[None]).astype("float64")
    target = same / same.sum(1, keepdims=True)
    values = []
    for a, b in PAIRS[ways]:
        a, b = (EMBEDDINGS[k].astype("float64") for k in (a, b))
        logs = log_softmax(np.exp(SCALE) * a @ b.T)
        values.append(-(target * logs).sum(1))
    return np.mean(values, axis=0)


def packed(ways):
    kinds = heads.embedding_kinds(ways)
    return pack_embeddings(
        {k: ops.convert_to_tensor(EMBEDDINGS[k]) for k in kinds},
        ops.convert_to_tensor(np.float32(SCALE)),
    )


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(array(found), expected, rtol=rtol)


def test_masked_lm_is_the_mean_over_masked_tokens():
    loss, weights = MaskedLMLoss(), np.array([0.5, 1, 1, 2])
    by_row, count = token_losses().sum(1), (LABELS >= 0).sum()
    close(loss(LABELS, LOGITS), by_row.sum() / count, 1e-6)
    rows = loss.call(LABELS, ops.convert_to_tensor(LOGITS))
    close(rows, by_row * len(LABELS) / count)
    weighted = loss(LABELS, LOGITS, sample_weight=weights)
    close(weighted, (by_row * weights).sum() / count)


def test_masked_lm_without_masks_is_zero():
    nothing = np.full_like(LABELS, -100)
    assert float(MaskedLMLoss()(nothing, LOGITS)) == 0


def test_masked_lm_ignore_id():
    loss = MaskedLMLoss.from_config(MaskedLMLoss(ignore_id=-1).get_config())
    assert loss.ignore_id == -1 and loss.name == "masked_lm_loss"
    labels = np.where(LABELS < 0, -1, LABELS)
    close(loss(labels, LOGITS), array(MaskedLMLoss()(LABELS, LOGITS)), 1e-6)


def padded(values):
    """Append two copies of the first row, as a stream pads a batch."""
    return np.concatenate([values, values[:1], values[:1]])


def row_weights(values):
    return np.where(np.arange(len(values) + 2) < len(values), 1.0, 0.0)


def test_masked_lm_ignores_padded_samples():
    loss, whole = MaskedLMLoss(), MaskedLMLoss()(LABELS, LOGITS)
    got = loss(padded(LABELS), padded(LOGITS), row_weights(LABELS))
    # Keras divides by all six rows.
    close(6 * got, 4 * array(whole), 1e-6)


@pytest.mark.parametrize("ways", PAIRS)
@slow_on("jax")
def test_contrastive_loss_ignores_padded_samples(ways):
    y_pred = array(packed(ways))
    got = ContrastiveLoss(ways)(padded(IDS), padded(y_pred), row_weights(IDS))
    close(7 * got, contrastive(ways).sum())


@pytest.mark.parametrize("ways", PAIRS)
def test_contrastive_loss_equals_its_formula(ways):
    loss, expected = ContrastiveLoss(ways), contrastive(ways)
    close(loss.call(IDS, packed(ways)), expected)
    close(loss(IDS, packed(ways)), expected.mean())
    weights = np.array([0.5, 1, 2, 0.1, 1])
    weighted = loss(IDS, packed(ways), sample_weight=weights)
    close(weighted, (weights * expected).mean())
    # Without equal ids the targets are the diagonal, another number.
    apart = contrastive(ways, np.arange(5)).mean()
    close(loss(np.arange(5), packed(ways)), apart)
    assert abs(apart - expected.mean()) > 0.1
    assert ContrastiveLoss.from_config(loss.get_config()).ways == ways


@slow_on("tensorflow")
def test_large_ids_stay_distinct():
    large = 2**30 + np.arange(5, dtype="int32")
    assert len(set(large.astype("float32").tolist())) == 1
    expected = contrastive("two_way", np.arange(5)).mean()
    close(ContrastiveLoss("two_way")(large, packed("two_way")), expected)
    # As labels of `fit`, too.
    inputs = keras.Input((13,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(
        loss=ContrastiveLoss("two_way"),
        metrics=[ContrastiveAccuracy("two_way")],
        jit_compile=False,
    )
    loss, accuracy = model.evaluate(array(packed("two_way")), large, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    best = (EMBEDDINGS["text"] @ EMBEDDINGS["image"].T).argmax(1)
    assert accuracy == pytest.approx(np.mean(best == np.arange(5)))


@pytest.mark.parametrize("ways", PAIRS)
def test_contrastive_accuracy(ways):
    accuracy = ContrastiveAccuracy(ways)
    best = (EMBEDDINGS["text"] @ EMBEDDINGS["image"].T).argmax(1)
    right = (IDS[best] == IDS).astype(float)
    assert 0 < right.mean() < 1
    accuracy.update_state(IDS, packed(ways))
    assert float(accuracy.result()) == pytest.approx(right.mean())
    all_equal = np.zeros(5, "int32")
    accuracy.update_state(all_equal, packed(ways))
    assert float(accuracy.result()) == pytest.approx((right.mean() + 1) / 2)
    copy = ContrastiveAccuracy.from_config(accuracy.get_config())
    assert (copy.ways, copy.name) == (ways, "itc_accuracy")


@pytest.mark.parametrize("direction", [1, -1])
def test_logit_scale_stays_within_its_limits(direction):
    head = heads.ContrastiveHead(4, "two_way")
    head.build({"text": (None, 6), "image": (None, 6)})
    assert float(array(head.logit_scale)) == pytest.approx(np.log(1 / 0.07))
    optimizer = keras.optimizers.SGD(1.0)
    gradient = ops.convert_to_tensor(np.float32(direction * 1e4))
    optimizer.apply([gradient], [head.logit_scale])
    limit = {1: np.log(2), -1: np.log(1000)}[direction]
    assert float(array(head.logit_scale)) == pytest.approx(limit, abs=1e-6)


def test_vqa_loss_equals_its_formula():
    z = VQA_LOGITS.astype("float64")
    losses = np.logaddexp(0, z) - z * VQA_SCORES
    loss = kbt.VQALoss()
    close(loss(VQA_SCORES, VQA_LOGITS), losses.sum(-1).mean(), 1e-6)
    per_sample = loss.call(VQA_SCORES, ops.convert_to_tensor(VQA_LOGITS))
    close(per_sample, losses.sum(-1))
    weighted = loss(VQA_SCORES, VQA_LOGITS, sample_weight=np.array([1.0, 0.0]))
    close(weighted, losses[0].sum() / 2, 1e-6)


def test_vqa_score_of_the_best_answer():
    score = kbt.VQAScore()
    score.update_state(VQA_SCORES, VQA_LOGITS)
    assert float(score.result()) == pytest.approx((0.3 + 1.0) / 2)
    score.update_state(VQA_SCORES[:1], VQA_LOGITS[:1])
    assert float(score.result()) == pytest.approx((0.3 + 1.0 + 0.3) / 3)
    score.reset_state()
    score.update_state(VQA_SCORES, VQA_LOGITS, np.array([3.0, 1.0]))
    assert float(score.result()) == pytest.approx((0.9 + 1.0) / 4)
    assert kbt.VQAScore.from_config(score.get_config()).name == "vqa_score"


@pytest.mark.parametrize("shape", [(2, 1), (2, 4)])
def test_vqa_targets_are_not_broadcast(shape):
    for measure in (kbt.VQALoss(), kbt.VQAScore()):
        with pytest.raises(ValueError, match="soft scores.*Received: y of"):
            measure(np.ones(shape, "float32"), VQA_LOGITS)
