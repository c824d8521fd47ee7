"""VQA and its kin: NLVR2, and the tasks of one tower."""

import copy

import every_task
import keras
import numpy as np
import peers
import pytest
import torch
from builders import ANSWERS
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import classifier_head
from builders import clip
from builders import difference
from builders import eager
from builders import features
from builders import one_layer_each
from builders import randomise
from builders import raw
from builders import roberta
from builders import shallow
from builders import slow_on
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal


@LONG_ELSEWHERE
def test_texts_are_shortened_to_buckets():
    model = eager(randomise(vqa(**one_layer_each())))
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


@LONG_ELSEWHERE
@pytest.mark.parametrize("soft", [True, False])
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
    for answers, loaded in ((ANSWERS, "b"), (["a"], "a")):
        other = kbt.BridgeTowerVQA(shallow(), answers=answers)
        with pytest.raises(ValueError, match="heads of a task too"):
            other.backbone.load_lora_weights(file)
        other.enable_lora(2)
        before = [array(weight) for weight in other.weights]
        with pytest.raises(ValueError, match="must hold the heads"):
            other.load_lora_weights(tmp_path / f"{loaded}.lora.h5")
        assert_same_weights(other, before)


def test_bfloat16_is_compiled_by_xla_on_jax_alone():
    on_jax = keras.config.backend() == "jax"
    half = {"dtype": "bfloat16"}
    encoders = clip(layers=1, **half), roberta(layers=1, **half)
    body = backbone(*encoders, num_layers=1, **half)
    task = kbt.BridgeTowerVQA(body, answers=ANSWERS)
    # The others compute it with the processor's units, without XLA.
    assert task.jit_compile == on_jax


@slow_on("jax")
def test_nlvr2_in_closed_form():
    judge = randomise(kbt.BridgeTowerNLVR2(backbone()))
    made, parts = features(), judge.backbone
    both = [made["images"], features(seed=1)["images"]]
    made["images"] = np.stack(both, axis=1)
    text = parts.text_tower({k: made[k] for k in parts.text_tower.input})
    pooled = []
    for row, images in enumerate(both, start=1):
        states = text, parts.image_tower(images), made["padding_mask"]
        pooled.append(array(parts.fusion(*states, image_row=row)["pooled"]))
    head = judge.heads["nlvr2"]
    expected = classifier_head(np.concatenate(pooled, -1), head.weights)
    assert difference(judge(made, training=False), expected) <= 1e-5


@FASTEST
def test_pairs_stay_in_order_and_others_are_refused():
    made = every_task.preprocessor("nlvr2")
    black = np.zeros((20, 30, 3), "uint8")
    pictures = list(raw(2)[0]["images"])
    kept = made({"images": [pictures], "text": ["a"]})["images"][0]
    assert difference(kept, made.image_converter(pictures)) == 0
    for images, text in (
        (black, "a"),
        ([[black] * 3], ["a"]),
        ([[black] * 2], ["a", "b"]),
        ([[black] * 2], "a"),
    ):
        with pytest.raises(ValueError, match="which must be"):
            made({"images": images, "text": text})


def test_image_logits_equal_the_closed_form():
    model = randomise(every_task.make("image_classifier"))
    images = features()["images"]
    state = array(model.backbone.image_tower(images)[-1])[:, 0]
    kernel, bias = map(array, model.heads["image_class"].weights)
    found = model({"images": images}, training=False)
    assert difference(found, state @ kernel + bias) <= 1e-5
    # The highest state is the encoder's own output, its final norm passed.
    encoder = model.backbone.image_encoder
    assert difference(array(encoder({"images": images}))[:, 0], state) <= 1e-5


def test_text_logits_equal_transformers(tmp_path):
    theirs = peers.made(
        *("Roberta", "ForSequenceClassification"),
        **peers.TEXT,
        **peers.OF_ROBERTA,
        num_labels=len(every_task.LABELS),
    )()
    theirs.save_pretrained(tmp_path)
    made = backbone(text_encoder=unimodal.text_encoder(tmp_path))
    ours = kbt.BridgeTowerTextClassifier(made, labels=every_task.LABELS)
    (head,) = (ours.heads[name] for name in ours.heads)
    for name, layer in (
        ("dense", head.hidden_dense),
        ("out_proj", head.output_dense),
    ):
        source = getattr(theirs.classifier, name)
        layer.kernel.assign(source.weight.detach().numpy().T)
        layer.bias.assign(source.bias.detach().numpy())
    inputs = {k: v for k, v in features().items() if k != "images"}
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(inputs["token_ids"].astype("int64")),
            attention_mask=torch.tensor(inputs["padding_mask"].astype("int64")),
        ).logits
    assert difference(ours(inputs, training=False), expected.numpy()) <= 1e-5


@FASTEST
def test_pairs_are_packed_as_roberta_s():
    made = every_task.preprocessor("text_classifier")
    ids = made({"text": "ab", "second_text": "c"})["token_ids"]
    a, b, c = made.tokenizer("abc")[1:4]
    assert ids[:9].tolist() == [0, a, b, 2, 2, c, 2, 1, 1]
