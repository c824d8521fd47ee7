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


def unit(seed, rows=5, width=6):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")


EMBEDDINGS = {"fused": unit(3), "image": unit(2), "text": unit(1)}


def packed(ways):
    kinds = heads.embedding_kinds(ways)
    return pack_embeddings(
        {k: ops.convert_to_tensor(EMBEDDINGS[k]) for k in kinds},
        ops.convert_to_tensor(np.float32(SCALE)),
    )


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(array(found), expected, rtol=rtol)


def test_masked_lm_ignore_id():
    loss = MaskedLMLoss.from_config(MaskedLMLoss(ignore_id=-1).get_config())
    assert loss.ignore_id == -1 and loss.name == "masked_lm_loss"
    labels = np.where(LABELS < 0, -1, LABELS)
    close(loss(labels, LOGITS), array(MaskedLMLoss()(LABELS, LOGITS)), 1e-6)
    # Without a masked token.
    assert float(loss(np.full_like(LABELS, -1), LOGITS)) == 0


@slow_on("tensorflow")
def test_large_ids_stay_distinct():
    large = 2**30 + np.arange(5, dtype="int32")
    assert len(set(large.astype("float32").tolist())) == 1
    text, image = (EMBEDDINGS[k].astype("float64") for k in ("text", "image"))
    values = np.exp(SCALE) * text @ image.T
    shares = [np.exp(x) / np.exp(x).sum(axis=0) for x in (values, values.T)]
    expected = -np.mean([np.log(np.diag(x)) for x in shares])
    loss = ContrastiveLoss.from_config(ContrastiveLoss("two_way").get_config())
    close(loss(large, packed("two_way")), expected)
    # As labels of `fit`, too.
    inputs = keras.Input((13,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(
        loss=loss,
        metrics=[ContrastiveAccuracy("two_way")],
        jit_compile=False,
    )
    found, accuracy = model.evaluate(array(packed("two_way")), large, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)
    best = (EMBEDDINGS["text"] @ EMBEDDINGS["image"].T).argmax(1)
    assert accuracy == pytest.approx(np.mean(best == np.arange(5)))


@pytest.mark.parametrize("ways", heads.WAYS)
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
