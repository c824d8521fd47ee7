"""The VQA task, from raw pictures to answers and back to disk."""

import copy

import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import difference
from builders import eager
from builders import features
from builders import one_layer_each
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import vqa

import keras_bridgetower as kbt


@slow_on("jax")
def test_texts_are_shortened_to_buckets():
    model = randomise(vqa(**one_layer_each()))
    eager(model)
    x, _ = raw(4)
    images, texts = list(x["images"]), ["a", "bc", *x["text"][:2]]
    whole = model.answer(images, texts, top_k=4, batch_size=2)
    model.preprocessor.buckets = (8, 16, 24)
    widths = []
    sources = model.sources(images, texts, "questions")
    buckets = model.preprocessor.buckets
    for x, _ in model.batches("answer", sources, 2, buckets=buckets):
        widths.append(x["token_ids"].shape[1])
    assert widths == [8, 16]
    short = model.answer(images, texts, top_k=4, batch_size=2)
    for a, b in zip(whole, short, strict=True):
        assert dict(a) == pytest.approx(dict(b), abs=1e-6)


@slow_on("jax")
@pytest.mark.parametrize("soft", some_everywhere([True, False], True))
def test_losses_of_other_targets_are_rejected(soft):
    ids, one_hot = np.arange(4, dtype="int32"), np.eye(4, dtype="float32")
    model = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    of_ids = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    of_scores = keras.losses.CategoricalCrossentropy(from_logits=True)
    x, right = features(model.backbone, batch=4), (of_ids, of_scores)[soft]
    wrong = of_ids if soft else of_scores
    model.compile("sgd", loss=wrong, metrics=[])
    with pytest.raises(ValueError, match="`loss` must take targets"):
        model.evaluate(x, one_hot if soft else ids, verbose=0)
    model.compile("sgd", loss=right, metrics=[])
    found = model.evaluate(x, one_hot if soft else ids, verbose=0)
    logits = model.predict(x, verbose=0).astype("float64")
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert found == pytest.approx(-np.log(shares[ids, ids]).mean(), abs=1e-5)


@LONG_ELSEWHERE
def test_lora_weights_of_a_task_include_its_head(tmp_path):
    model, file = vqa(**one_layer_each()), tmp_path / "a.lora.h5"
    x, _ = raw(4)
    other = copy.deepcopy(model)
    with pytest.raises(ValueError, match="no adapters"):
        model.save_lora_weights(file)
    model.enable_lora(2)
    for weight in model.trainable_weights:
        weight.assign(array(weight) + 0.1)
    model.save_lora_weights(file)
    expected = model.predict(x, verbose=0)
    assert difference(other.predict(x, verbose=0), expected) > 1e-3
    other.load_lora_weights(file)
    assert difference(other.predict(x, verbose=0), expected) <= 1e-6

    # What does not fit changes nothing.
    model.backbone.save_lora_weights(tmp_path / "b.lora.h5")
    for answers, rank, loaded, error in (
        (ANSWERS, 2, "b", "must hold the heads"),
        (["a"], 2, "a", "must hold the heads"),
        (ANSWERS, 3, "a", "same layers and ranks"),
    ):
        other = kbt.BridgeTowerVQA(shallow(), answers=answers)
        with pytest.raises(ValueError, match="heads of a task too"):
            other.backbone.load_lora_weights(file)
        other.enable_lora(rank)
        before = [array(weight) for weight in other.weights]
        with pytest.raises(ValueError, match=error):
            other.load_lora_weights(tmp_path / f"{loaded}.lora.h5")
        assert_same_weights(other, before)


PRESET = "bridgetower_tiny_easy_vqa"


def test_bfloat16_is_compiled_by_xla_on_jax_alone():
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET, dtype="bfloat16")
    on_jax = keras.config.backend() == "jax"
    # The others compute it with the processor's units, without XLA.
    assert vqa.jit_compile == on_jax
