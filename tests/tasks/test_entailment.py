"""Visual entailment, from raw pictures to labels and back to disk."""

import re
import warnings

import numpy as np
import pytest
import tensorflow as tf
import torch
from builders import SIDE
from builders import array
from builders import backbone
from builders import classifier_head
from builders import difference
from builders import eager
from builders import features
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import tokenizer
from convert import official

import keras_bridgetower as kbt

IMAGE = np.zeros((20, 30, 3), "uint8")
LABELS = ("contradiction", "neutral", "entailment")


def preprocessor():
    return kbt.BridgeTowerEntailmentPreprocessor(
        tokenizer(24), kbt.BridgeTowerImageConverter(SIDE)
    )


def entailment():
    return kbt.BridgeTowerEntailment(shallow(), preprocessor())


@pytest.fixture(scope="module")
def judge():
    """A task that is asked but not changed."""
    return randomise(entailment())


@slow_on("tensorflow", "jax")
def test_forms_of_entail(judge):
    label, shares = judge.entail(IMAGE, "is it red?")
    assert tuple(shares) == LABELS and label == max(shares, key=shares.get)
    assert sum(shares.values()) == pytest.approx(1)
    many = judge.entail([IMAGE, IMAGE], ["is it red?", "why?"], batch_size=2)
    assert many[0][0] == label
    assert many[0][1] == pytest.approx(shares, abs=1e-6)
    x, _ = raw(2)
    logits = judge.predict(x, verbose=0)
    assert logits.shape == (2, 3) and logits.dtype == np.float32
    weights = np.exp(logits.astype("float64"))
    found = judge.entail(list(x["images"]), x["text"])
    np.testing.assert_allclose(
        [list(shares.values()) for _, shares in found],
        weights / weights.sum(-1, keepdims=True),
        atol=1e-6,
    )


def test_logits_equal_the_closed_form():
    judge, inputs = randomise(kbt.BridgeTowerEntailment(backbone())), features()
    pooled = judge.backbone(inputs, training=False)["pooled"]
    expected = classifier_head(pooled, judge.heads["entailment"].weights)
    assert difference(judge(inputs, training=False), expected) <= 1e-5


@pytest.mark.filterwarnings("ignore:.*takes features only")
@slow_on("tensorflow")
def test_the_authors_head_opens(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    state = official.save(tmp_path / "snli.ckpt", "snli")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "New and random")
        model = kbt.BridgeTowerEntailment.from_preset(tmp_path / "snli.ckpt")
    tensors = {
        k.removeprefix("snli_classifier."): v.numpy().astype("float64")
        for k, v in state.items()
        if k.startswith("snli_classifier")
    }
    pooled = np.random.default_rng(0).normal(size=(3, 128)).astype("float32")
    hidden = torch.nn.functional.layer_norm(
        torch.tensor(pooled @ tensors["0.weight"].T + tensors["0.bias"]),
        (256,),
        torch.tensor(tensors["1.weight"]),
        torch.tensor(tensors["1.bias"]),
    )
    hidden = torch.nn.functional.gelu(hidden).numpy()
    expected = hidden @ tensors["3.weight"].T + tensors["3.bias"]
    assert difference(model.heads["entailment"](pooled), expected) <= 1e-5


@pytest.mark.parametrize(
    "y",
    [
        np.array([2, 0]),
        [2, 0],
        ["entailment", "contradiction"],
        np.array(["entailment", "contradiction"]),
    ],
)
def test_forms_of_labels(y):
    made = preprocessor()
    _, eager = made({"images": [IMAGE, IMAGE], "text": ["a", "b"]}, y=y)
    assert eager.tolist() == [2, 0] and eager.dtype == np.int32
    arrays = {"images": np.stack([IMAGE] * 2), "text": ["a", "b"]}
    rows = tf.data.Dataset.from_tensor_slices((arrays, tf.constant(y)))
    ((_, mapped),) = rows.batch(2).map(made)
    assert mapped.numpy().tolist() == [2, 0] and mapped.dtype == tf.int32
    singles = [int(label) for _, label in rows.map(made)]
    assert singles == [2, 0]


@pytest.mark.parametrize(
    "y, message",
    [
        ([0, 3], "ids from 0 to 2.*'entailment'.*Received: y=3"),
        ([0, -1], "Received: y=-1"),
        (["neutral", "maybe"], "names of 'contradiction'.*y='maybe'"),
        (np.array([0.0, 1.0]), "Received: y of shape .* dtype float64"),
        (np.array([True, False]), "dtype bool"),
        (np.array([[0], [1]]), r"one for each sample.*shape \(2, 1\)"),
        (np.int64(1), r"y of shape \(\)"),
    ],
)
def test_labels_that_are_refused(y, message):
    made = preprocessor()
    x = {"images": [IMAGE, IMAGE], "text": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        made(x, y=y)


def test_a_wrong_label_stops_tf_data_by_name():
    arrays = {"images": np.stack([IMAGE] * 2), "text": ["a", "b"]}
    for y in ([0, 3], ["neutral", "maybe"]):
        rows = tf.data.Dataset.from_tensor_slices((arrays, y)).batch(2)
        # Outside of a task TensorFlow tells it, which escapes quotes.
        shown = re.escape(repr(y[1]).replace("'", r"\'"))
        with pytest.raises(Exception, match=f"Received: y={shown}"):
            list(rows.map(preprocessor()))


@pytest.mark.parametrize(
    "images, hypotheses, message",
    [
        ([IMAGE], ["a", "b"], "same number"),
        ([IMAGE] * 3, ["a", "b"], "same number"),
        ([], [], "at least one picture"),
        ([IMAGE, IMAGE], ["a", " "], r"not be empty.*text\[1\]"),
        ("/no/such.png", "a", "/no/such.png"),
    ],
)
def test_bad_questions(judge, images, hypotheses, message):
    with pytest.raises(ValueError, match=message):
        judge.entail(images, hypotheses)


@slow_on("tensorflow", "jax")
def test_fit():
    x, _ = raw(8)
    y = np.array([0, 1, 2, 0] * 2)
    model = eager(entailment())
    names = [LABELS[i] for i in y]
    rows = tf.data.Dataset.from_tensor_slices((x, names)).batch(4)
    first = model.fit(rows, verbose=0).history
    last = model.fit(x, y, batch_size=4, epochs=4, verbose=0).history
    assert last["loss"][-1] < first["loss"][0]
    results = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    logits = model.predict(x, batch_size=4, verbose=0)
    assert results["accuracy"] == pytest.approx((logits.argmax(-1) == y).mean())
    assert np.isfinite(results["loss"])


@slow_on("jax")
def test_save_to_preset(tmp_path):
    model = randomise(
        kbt.BridgeTowerEntailment(
            shallow(), preprocessor(), head_hidden_scale=1
        )
    )
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerEntailment.from_preset(str(tmp_path / "preset"))
    inputs = features()
    assert difference(copy(inputs), array(model(inputs))) == 0
    assert copy.head_hidden_scale == 1
    x, _ = raw(2)
    assert difference(copy.preprocessor(x), model.preprocessor(x)) == 0
