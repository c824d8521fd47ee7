"""Loss and metric against closed forms."""

import numpy as np
import pytest
from builders import array

import keras_bridgetower as kbt

LOGITS = np.array([[2.0, -1.0, 0.5], [-80.0, 80.0, 0.0]], "float32")
SCORES = np.array([[0.3, 1.0, 0.0], [0.0, 1.0, 0.6]], "float32")


def test_vqa_loss():
    z = LOGITS.astype("float64")
    losses = np.logaddexp(0, z) - z * SCORES
    loss = kbt.VQALoss()
    assert float(loss(SCORES, LOGITS)) == pytest.approx(
        losses.sum(-1).mean(), rel=1e-6
    )
    per_sample = array(loss.call(SCORES, array_like(LOGITS)))
    np.testing.assert_allclose(per_sample, losses.sum(-1), rtol=1e-5)
    weighted = loss(SCORES, LOGITS, sample_weight=np.array([1.0, 0.0]))
    assert float(weighted) == pytest.approx(losses[0].sum() / 2, rel=1e-6)


def test_vqa_score():
    score = kbt.VQAScore()
    score.update_state(SCORES, LOGITS)
    assert float(score.result()) == pytest.approx((0.3 + 1.0) / 2)
    score.update_state(SCORES[:1], LOGITS[:1])
    assert float(score.result()) == pytest.approx((0.3 + 1.0 + 0.3) / 3)
    score.reset_state()
    score.update_state(SCORES, LOGITS, sample_weight=np.array([3.0, 1.0]))
    assert float(score.result()) == pytest.approx((0.9 + 1.0) / 4)
    assert kbt.VQAScore.from_config(score.get_config()).name == "vqa_score"


@pytest.mark.parametrize("shape", [(2, 1), (2, 4)])
def test_targets_are_never_broadcast(shape):
    for measure in (kbt.VQALoss(), kbt.VQAScore()):
        with pytest.raises(ValueError, match="soft scores.*Received: y of"):
            measure(np.ones(shape, "float32"), LOGITS)


def array_like(x):
    from keras import ops

    return ops.convert_to_tensor(x)
