"""Entailment, NLVR2 and the tasks of one tower."""

import every_task
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import classifier_head
from builders import difference
from builders import features
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import some_everywhere

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal


def pairs(batch=4):
    x, _ = raw(2 * batch)
    images = x["images"].reshape(batch, 2, *x["images"].shape[1:])
    return {"images": images, "text": x["text"][:batch]}


def inputs(batch=3):
    """Features, the pictures of each pair different."""
    left, right = features(batch=batch), features(batch=batch, seed=1)
    images = np.stack([left["images"], right["images"]], axis=1)
    return {**left, "images": images}


@pytest.fixture(scope="module")
def tasks():
    """Tasks that are asked but not changed."""
    made = shallow()
    names = ("entailment", "nlvr2")
    return {name: randomise(every_task.make(name, made)) for name in names}


@slow_on("jax")
def test_entailment_in_closed_form():
    judge, x = randomise(kbt.BridgeTowerEntailment(backbone())), features()
    pooled = judge.backbone(x, training=False)["pooled"]
    expected = classifier_head(pooled, judge.heads["entailment"].weights)
    assert difference(judge(x, training=False), expected) <= 1e-5


@slow_on("jax")
def test_nlvr2_in_closed_form():
    judge = randomise(kbt.BridgeTowerNLVR2(backbone()))
    made, parts = inputs(), judge.backbone
    text = parts.text_tower({k: made[k] for k in parts.text_tower.input})
    pooled = [
        array(
            parts.fusion(
                text,
                parts.image_tower(made["images"][:, place]),
                made["padding_mask"],
                image_row=place + 1,
            )["pooled"]
        )
        for place in (0, 1)
    ]
    head = judge.heads["nlvr2"]
    expected = classifier_head(np.concatenate(pooled, -1), head.weights)
    found = array(judge(made, training=False))
    assert difference(found, expected) <= 1e-5
    # The order of the pictures counts.
    swapped = {**made, "images": made["images"][:, ::-1].copy()}
    assert difference(judge(swapped, training=False), expected) > 1e-3


@FASTEST
def test_pictures_that_are_no_pairs():
    made = every_task.preprocessor("nlvr2")
    black = np.zeros((20, 30, 3), "uint8")
    for images, text in (
        (black, "a"),
        ([[black] * 3], ["a"]),
        ([[black] * 2], ["a", "b"]),
        ([[black] * 2], "a"),
    ):
        with pytest.raises(ValueError, match="which must be"):
            made({"images": images, "text": text})


@FASTEST
def test_pairs_in_every_place():
    made, x = every_task.preprocessor("nlvr2"), pairs(3)
    eager = made(x)
    lists = made({**x, "images": [list(pair) for pair in x["images"]]})
    assert difference(lists, eager) == 0
    converted = made.image_converter(x["images"][1, 1])
    assert difference(eager["images"][1, 1], converted) == 0
    rows = tf.data.Dataset.from_tensor_slices(x)
    (mapped,) = rows.batch(3).map(made)
    assert difference({k: v.numpy() for k, v in mapped.items()}, eager) == 0
    for i, single in enumerate(rows.map(made)):
        assert difference(single["images"].numpy(), eager["images"][i]) == 0


IMAGE = np.zeros((20, 30, 3), "uint8")
LABELS = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed, on one backbone."""
    made = randomise(shallow())
    names = {"image": "image_classifier", "text": "text_classifier"}
    names["number"] = "text_regressor"
    return {k: randomise(every_task.make(v, made)) for k, v in names.items()}


def text_features():
    return {k: v for k, v in features().items() if k != "images"}


def test_image_logits_equal_the_closed_form(models):
    model = models["image"]
    images = features()["images"]
    state = array(model.backbone.image_tower(images)[-1])[:, 0]
    kernel, bias = map(array, model.heads["image_class"].weights)
    found = model({"images": images}, training=False)
    assert difference(found, state @ kernel + bias) <= 1e-5
    # The highest state is the encoder's own output, its final norm passed.
    encoder = model.backbone.image_encoder
    assert difference(array(encoder({"images": images}))[:, 0], state) <= 1e-5


@pytest.mark.parametrize("classes", some_everywhere([3, 1], 3))
def test_text_logits_equal_transformers(classes, tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        type_vocab_size=1,
        num_labels=classes,
        layer_norm_eps=1e-5,
    )
    theirs = transformers.RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    theirs.save_pretrained(tmp_path)
    made = backbone(text_encoder=unimodal.text_encoder(tmp_path))
    if classes == 1:
        ours = kbt.BridgeTowerTextRegressor(made)
    else:
        ours = kbt.BridgeTowerTextClassifier(made, labels=LABELS)
    (head,) = (ours.heads[name] for name in ours.heads)
    for name, layer in (
        ("dense", head.hidden_dense),
        ("out_proj", head.output_dense),
    ):
        source = getattr(theirs.classifier, name)
        layer.kernel.assign(source.weight.detach().numpy().T)
        layer.bias.assign(source.bias.detach().numpy())
    inputs = text_features()
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(inputs["token_ids"].astype("int64")),
            attention_mask=torch.tensor(inputs["padding_mask"].astype("int64")),
        ).logits
    assert difference(ours(inputs, training=False), expected.numpy()) <= 1e-5


@FASTEST
def test_pairs_are_packed_as_roberta_s(models):
    made = models["text"].preprocessor
    ids = made({"text": "ab", "second_text": "c"})["token_ids"]
    a, b, c = made.tokenizer("abc")[1:4]
    assert ids[:9].tolist() == [0, a, b, 2, 2, c, 2, 1, 1]
    ((mapped),) = (
        tf.data.Dataset.from_tensors({"text": ["ab"], "second_text": ["c"]})
    ).map(made)
    assert mapped["token_ids"].numpy()[0].tolist() == ids.tolist()


@LONG_ELSEWHERE
@pytest.mark.filterwarnings("ignore:Newly initialized in this BridgeTowerImage")
def test_what_another_task_finds_in_the_preset(models, tmp_path):
    models["text"].save_to_preset(tmp_path / "text")
    with pytest.warns(UserWarning, match="there are no image_converter files"):
        task = kbt.BridgeTowerImageClassifier.from_preset(
            tmp_path / "text", labels=["a", "b"]
        )
    assert task.preprocessor is None
    with pytest.raises(ValueError, match="`labels` must be given"):
        kbt.BridgeTowerTextClassifier.from_preset("bridgetower_tiny_easy_vqa")
