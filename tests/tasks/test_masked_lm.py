"""Masked language modelling, from raw texts to filled ones."""

import warnings

import numpy as np
import peer
import pytest
import tensorflow as tf
import torch
from builders import SIDE
from builders import array
from builders import backbone
from builders import difference
from builders import fast
from builders import moved
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import tokenizer
from convert import checkpoints

import keras_bridgetower as kbt
from keras_bridgetower.objectives.losses import MaskedLMLoss

IMAGE = np.zeros((20, 30, 3), "uint8")
LENGTH, MASKS = 24, 8


def preprocessor(**kwargs):
    return kbt.BridgeTowerMaskedLMPreprocessor(
        tokenizer(LENGTH),
        kbt.BridgeTowerImageConverter(SIDE),
        **{"max_masks": MASKS, "rate": 0.3} | kwargs,
    )


def masked_lm(made=None):
    return kbt.BridgeTowerMaskedLM(made or shallow(), preprocessor())


@pytest.fixture(scope="module")
def filler():
    """A task that is asked but not changed."""
    return randomise(masked_lm(backbone()))


@slow_on("tensorflow", "jax")
def test_logits_and_loss_equal_transformers(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    theirs = checkpoints.theirs("mlm")
    theirs.save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = kbt.BridgeTowerMaskedLM.from_preset(
            tmp_path / "theirs", preprocessor=None
        )
    features, inputs = peer.inputs(checkpoints.SIZE)
    positions = np.array([[1, 3, 4, 11], [2, 5, 0, 0]], "int32")
    slots = np.array([[17, 3, 99, 5], [8, 0, -100, -100]], "int32")
    labels = np.full(features["token_ids"].shape, -100)
    for row, places, ids in zip(labels, positions, slots, strict=True):
        kept = ids != -100
        row[places[kept]] = ids[kept]
    with torch.no_grad():
        expected = theirs(**inputs, labels=torch.tensor(labels))
    found = ours({**features, "mask_positions": positions}, training=False)
    logits = np.take_along_axis(
        expected.logits.numpy(), positions[..., None], axis=1
    )
    assert difference(found, logits) <= 1e-5
    loss = MaskedLMLoss()(slots, found)
    assert float(array(loss)) == pytest.approx(float(expected.loss), abs=1e-5)


@slow_on("tensorflow", "jax")
def test_forms_of_fill_mask(filler):
    text = "is <mask> red <mask>"
    masks, filled = filler.fill_mask(IMAGE, text, top_k=3)
    assert [len(tokens) for tokens in masks] == [3, 3]
    shares = [share for _, share in masks[0]]
    assert shares == sorted(shares, reverse=True) and 0 < shares[-1] < 1
    many = filler.fill_mask([IMAGE, IMAGE], [text, "<mask>!"])
    assert [len(masks) for masks, _ in many] == [2, 1]
    assert many[0][0][0][0][0] == masks[0][0][0]
    assert many[0][0][0][0][1] == pytest.approx(masks[0][0][1], abs=1e-6)
    assert many[0][1] == filled


@slow_on("jax")
def test_fill_mask_is_the_softmax_of_the_mask_token_s_logits(filler):
    made = filler.preprocessor
    text = "is it <mask> or <mask>?"
    plain = made.tokenizer(["is it", " or", "?"])
    pieces = [row[(row > 4)].tolist() for row in plain]
    mask = made.tokenizer.mask_token_id
    ids = [0, *pieces[0], mask, *pieces[1], mask, *pieces[2], 2]
    padding = LENGTH - len(ids)
    places = np.flatnonzero(np.array(ids) == mask)
    features = {
        "images": made.image_converter([IMAGE]),
        "token_ids": np.array([ids + [1] * padding], "int32"),
        "padding_mask": np.array([[1] * len(ids) + [0] * padding], "int32"),
    }
    states = filler.backbone(features, training=False)["text"]
    logits = array(filler.heads["mlm"](states))[0, places]
    size = made.tokenizer.vocabulary_size()
    weights = np.exp(logits[:, :size].astype("float64"))
    shares = weights / weights.sum(-1, keepdims=True)
    masks, filled = filler.fill_mask(IMAGE, text, top_k=5)
    best = np.argsort(-shares, axis=-1)[:, :5]
    for found, row, order in zip(masks, shares, best, strict=True):
        np.testing.assert_allclose(
            [share for _, share in found], row[order], atol=1e-6
        )
        for (token, _), i in zip(found, order, strict=True):
            written = made.tokenizer.detokenize(np.array([i]))
            assert token == (written or made.tokenizer.id_to_token(i))
    ids = np.array(ids)
    ids[places] = best[:, 0]
    assert filled == made.tokenizer.detokenize(ids)


def test_positions_and_labels_give_the_text_back():
    made = preprocessor(rate=0.5, max_masks=None)
    x, _ = raw(4)
    original = made.tokenizer(x["text"])
    special = made.tokenizer.special_token_ids
    hidden, unchanged = 0, 0
    for step in range(20):
        features, labels = made({**x, "step": step})
        ids, positions = features["token_ids"], features["mask_positions"]
        assert positions.shape == labels.shape == (4, LENGTH - 2)
        assert ids.dtype == positions.dtype == labels.dtype == np.int32
        restored = ids.copy()
        for row, places, tokens in zip(
            restored, positions, labels, strict=True
        ):
            kept = tokens != -100
            assert not set(tokens[kept]) & set(special)
            assert (np.diff(places[kept]) > 0).all()
            assert not places[~kept].any()
            unchanged += (row[places[kept]] == tokens[kept]).sum()
            row[places[kept]] = tokens[kept]
            hidden += kept.sum()
        np.testing.assert_array_equal(restored, original)
    # Half of all tokens that are not special, a tenth of them unchanged.
    candidates = 20 * (~np.isin(original, special)).sum()
    assert 0.4 < hidden / candidates < 0.6
    assert 0.05 < unchanged / hidden < 0.2


@pytest.mark.parametrize(
    "values", [dict(rate=1.5), dict(max_masks=0), dict(max_masks=LENGTH + 1)]
)
def test_bad_values(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"`{name}`"):
        preprocessor(**values)


@slow_on("tensorflow", "jax")
def test_fit_and_evaluate():
    x, _ = raw(8)
    model = fast(masked_lm())
    unread = {w.path for layer in model.unread_layers() for w in layer.weights}
    assert len(unread) == 4 + 26
    rows = tf.data.Dataset.from_tensor_slices(x)
    changed = moved(model, lambda: model.fit(rows.batch(4), verbose=0))
    backbone_weights = {w.path for w in model.backbone.trainable_weights}
    assert unread < backbone_weights
    heads = {w.path for w in model.heads["mlm"].weights}
    assert changed == heads | backbone_weights - unread
    features, labels = model.preprocessor({**x, "step": 0})
    bare = fast(kbt.BridgeTowerMaskedLM(model.backbone))
    bare.set_weights(model.get_weights())
    results = bare.evaluate(
        features, labels, batch_size=4, verbose=0, return_dict=True
    )
    logits = array(bare(features, training=False))
    assert logits.dtype == np.float32
    assert logits.shape == (
        8,
        MASKS,
        model.backbone.text_encoder.vocabulary_size,
    )
    kept = labels != -100
    right = (logits.argmax(-1) == labels)[kept]
    assert results["masked_token_accuracy"] == pytest.approx(right.mean())
