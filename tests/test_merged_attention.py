"""Merged attention against its formula, and as a value of models."""

import math

import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import difference
from builders import features
from builders import randomise

from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.cross_modal import MergedAttention

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS = 16, 2


def joined():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(2, 4, WIDTH)).astype("float32")
    image = rng.normal(size=(2, 7, WIDTH)).astype("float32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], "int32")
    step = MergedAttention(WIDTH, HEADS, 32, dropout=0.3, name="step")
    step(text, image, text, image, mask)
    return randomise(step), text, image, mask


def by_formula(step, text, image, mask):
    """Compute one post-norm transformer block in float64."""
    w = {
        weight.path.split("/", 1)[1]: array(weight).astype("float64")
        for weight in step.weights
    }
    x = np.concatenate([text, image], 1).astype("float64")
    kept = np.concatenate([mask, np.ones(image.shape[:2])], 1) == 1

    def heads(name):
        kernel = w[f"step_attention/{name}/kernel"]
        bias = w[f"step_attention/{name}/bias"]
        return np.einsum("btd,dhk->bhtk", x, kernel) + bias[:, None]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}_norm/gamma"] + w[f"{name}_norm/beta"]

    scores = heads("query") @ heads("key").swapaxes(-1, -2)
    scores = scores / math.sqrt(WIDTH // HEADS)
    weights = np.exp(scores) * kept[:, None, None]
    weights /= weights.sum(-1, keepdims=True)
    kernel = w["step_attention/attention_output/kernel"]
    mixed = np.einsum("bhtk,hkd->btd", weights @ heads("value"), kernel)
    x = norm(x + mixed + w["step_attention/attention_output/bias"], "attention")
    hidden = x @ w["intermediate_dense/kernel"] + w["intermediate_dense/bias"]
    hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    hidden = hidden @ w["output_dense/kernel"] + w["output_dense/bias"]
    return norm(x + hidden, "feedforward"), weights


def test_merged_attention_equals_its_formula():
    step, text, image, mask = joined()
    with capture_attention() as maps:
        found = step(text, image, text, image, mask)
    expected, weights = by_formula(step, text, image, mask)
    assert np.abs(array(maps["step_attention"]) - weights).max() <= 1e-5
    assert np.abs(array(found[0]) - expected[:, :4]).max() <= 1e-4
    assert np.abs(array(found[1]) - expected[:, 4:]).max() <= 1e-4
    fused = step(text, image, text, image, mask)
    assert difference(found[0], fused[0]) <= 1e-5


@pytest.mark.parametrize("queries", [(4, 7), (4, 0), (1, 1), (0, 7)])
def test_maps_contain_the_computed_rows(queries):
    step, text, image, mask = joined()
    t, p = queries
    with capture_attention() as everything:
        step(text, image, text, image, mask)
    with capture_attention() as maps:
        some = text[:, :t] if t else None, image[:, :p] if p else None
        step(*some, text, image, mask)
    (whole,) = step.branches(everything, (4, 7))
    (part,) = step.branches(maps, (4, 7), queries)
    rows = [*range(t), *range(4, 4 + p)]
    others = [i for i in range(11) if i not in rows]
    assert np.abs(part[..., rows, :] - whole[..., rows, :]).max() <= 1e-6
    assert not part[..., others, :].any()


def test_blocks_are_normalized_within_a_modality():
    model = randomise(backbone(cross_encoder="merged_attention"))
    inputs = features()
    with capture_attention() as captured:
        model(inputs)
    joint = array(captured["layer_1_attention"])
    maps = model.attention_maps(inputs)
    log = np.log(joint[:, :, :6, 6:])
    expected = np.exp(log - log.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    assert np.abs(maps["text_cross"][1] - expected).max() <= 1e-5
