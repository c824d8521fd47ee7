"""The cross-modal encoder: exactness of the fast paths, masks, taps."""

import json

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower.models.attention import BridgeTowerAttention
from keras_bridgetower.models.cross_modal import CROSS_ENCODERS
from keras_bridgetower.models.towers import resolve_taps

pytestmark = LONG_ELSEWHERE

WIDTH, HEADS, LAYERS = 16, 2, 3


def states(count=LAYERS, width=WIDTH):
    rng = np.random.default_rng(1)
    text = rng.normal(size=(count, 2, 5, width)).astype("float32")
    image = rng.normal(size=(count, 2, 10, width)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")
    return list(text), list(image), mask


def fusion(**kwargs):
    layer = kbt.CrossModalEncoder(WIDTH, HEADS, LAYERS, **kwargs)
    tapped = sum(tap is not None for tap in layer.taps)
    text, image, mask = states(tapped)
    layer(text, image, mask)
    return randomise(layer), (text, image, mask)


every_cross_encoder = pytest.mark.parametrize("cross", CROSS_ENCODERS)


@every_cross_encoder
@pytest.mark.parametrize(
    "bridge", ["add", "cross_attention_ffn", "adaptive_manager", None]
)
def test_fewer_outputs_are_the_same(cross, bridge):
    layer, inputs = fusion(bridge=bridge, cross_encoder=cross)
    everything = layer(*inputs)
    for outputs in (("pooled",), ("text",), ("image",), ("text", "pooled")):
        fewer = layer(*inputs, outputs=outputs)
        assert tuple(fewer) == outputs
        for name in outputs:
            assert difference(fewer[name], everything[name]) <= 1e-5


@every_cross_encoder
def test_fewer_outputs_compute_fewer_tokens(cross, monkeypatch):
    layer, inputs = fusion(cross_encoder=cross)
    queries = []
    step = CROSS_ENCODERS[cross]
    call = step.call

    def spy(self, text_query, image_query, *args, **kwargs):
        sides = text_query, image_query
        queries.append([None if q is None else q.shape[1] for q in sides])
        return call(self, text_query, image_query, *args, **kwargs)

    monkeypatch.setattr(step, "call", spy)
    for outputs, last in (
        (("pooled",), [1, 1]),
        (("text",), [5, None]),
        (("image",), [None, 10]),
        (("text", "pooled"), [5, 1]),
    ):
        queries.clear()
        layer(*inputs, outputs=outputs)
        assert queries == [[5, 10], [5, 10], last]


@pytest.mark.parametrize(
    "cross, bridge",
    [("co_attention", "cross_attention"), ("merged_attention", "add")],
)
def test_padding_has_no_influence(cross, bridge):
    layer, (text, image, mask) = fusion(bridge=bridge, cross_encoder=cross)
    changed = [np.where(mask[..., None] == 1, t, 9.0) for t in text]
    changed = [t.astype("float32") for t in changed]
    before, after = layer(text, image, mask), layer(changed, image, mask)
    kept = mask == 1
    for name in ("image", "pooled"):
        assert difference(before[name], after[name]) <= 1e-5
    a, b = array(before["text"])[kept], array(after["text"])[kept]
    assert np.abs(a - b).max() <= 1e-5
    unmasked = layer(changed, image)
    assert difference(before["pooled"], unmasked["pooled"]) > 1e-2


def test_fused_attention_equals_plain_attention():
    rng = np.random.default_rng(0)
    q, kv = rng.normal(size=(2, 4, 16)), rng.normal(size=(2, 7, 16))
    mask = rng.integers(0, 2, (2, 1, 7))
    mask[:, :, 0] = 1
    layer = BridgeTowerAttention(num_heads=2, key_dim=8, dropout=0.5)
    fused = layer(q, kv, attention_mask=mask)
    plain, weights = layer(
        q, kv, attention_mask=mask, return_attention_scores=True
    )
    assert difference(fused, plain) <= 1e-5
    np.testing.assert_allclose(array(weights).sum(-1), 1, atol=1e-5)
    assert (array(weights)[..., mask[1, 0] == 0][1] < 1e-6).all()
    assert difference(fused, layer(q, kv, attention_mask=mask)) == 0
    assert difference(fused, layer(q, kv, attention_mask=mask, training=True))


@pytest.mark.parametrize("tokens", [5, 150])
def test_attention_of_bfloat16_with_gradients(tokens):
    q = np.random.default_rng(0).normal(size=(2, tokens, 16)).astype("float32")
    exact = BridgeTowerAttention(num_heads=2, key_dim=8)
    layer = BridgeTowerAttention(2, 8, dtype="mixed_bfloat16")
    for each in (exact, layer):
        each.build(q.shape, q.shape)
    layer.set_weights(exact.get_weights())
    # Values are near one, of which bfloat16 keeps eight bits.
    assert difference(exact(q, q), keras.ops.cast(layer(q, q), "float32")) < (
        2**-6
    )


def test_second_image_has_its_own_type_embedding():
    layer, inputs = fusion()
    first, second = layer(*inputs), layer(*inputs, image_row=2)
    assert difference(first["pooled"], second["pooled"]) > 1e-3
    rows = array(layer.type_embedding).copy()
    rows[2] = rows[1]
    layer.type_embedding.assign(rows)
    assert difference(first, layer(*inputs, image_row=2)) == 0


@pytest.mark.parametrize(
    "taps, layers, bridge, expected",
    [
        (None, 3, "add", (-3, -2, -1)),
        (None, 3, None, (-1, None, None)),
        ([-4, -2, None], 3, "add", (-4, -2, None)),
        (np.array([-2, -1]), 2, "gate", (-2, -1)),
        ((None, -2, -1), 3, "add", None),
        ((-2, -2, -1), 3, "add", None),
        ((-2, -1, 0), 3, "add", None),
        ((-2, None, None), 3, None, None),
    ],
)
def test_taps_are_resolved_or_rejected(taps, layers, bridge, expected):
    if expected is None:
        with pytest.raises(ValueError, match="Received: taps="):
            resolve_taps(taps, layers, bridge)
    else:
        found = resolve_taps(taps, layers, bridge)
        # As integers of Python, which a configuration can hold.
        assert json.dumps(found) == json.dumps(expected)


def test_only_poolers_are_reset():
    layer, inputs = fusion()
    before = layer(*inputs)
    weights = [array(weight) for weight in layer.weights]
    layer.reset_poolers()
    after = layer(*inputs)
    assert difference(after["text"], before["text"]) == 0
    assert difference(after["pooled"], before["pooled"]) > 1e-3
    for weight, old in zip(layer.weights, weights, strict=True):
        same = np.array_equal(array(weight), old)
        assert same == ("pooler" not in weight.path)


@every_cross_encoder
def test_attention_dropout_differs_from_dropout(cross):
    def changes_in_training(**rates):
        layer, inputs = fusion(cross_encoder=cross, **rates)
        trained, inferred = (
            array(layer(*inputs, training=training)["text"])
            for training in (True, False)
        )
        return np.abs(trained - inferred).max() > 1e-5

    assert not changes_in_training(dropout=0.0)
    assert changes_in_training(dropout=0.0, attention_dropout=0.5)
    assert changes_in_training(dropout=0.5, attention_dropout=0.0)


@FASTEST
def test_inconsistent_states_are_rejected():
    layer, (text, image, mask) = fusion()
    short = [state[:1] for state in image]
    for wrong in (
        (text, short),
        (text[:-1], image),
        ([*text[:-1], text[-1][:, :1]], image),
        (text, image, mask[:, :1]),
    ):
        with pytest.raises(ValueError, match="`padding_mask` must be .batch"):
            layer(*wrong)
