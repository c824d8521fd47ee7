"""NLVR2 and the tasks of one tower."""

import every_task
import numpy as np
import pytest
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

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal


@slow_on("jax")
def test_nlvr2_in_closed_form():
    judge = randomise(kbt.BridgeTowerNLVR2(backbone()))
    made, parts = features(), judge.backbone
    both = [made["images"], features(seed=1)["images"]]
    made["images"] = np.stack(both, axis=1)
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


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed, on one backbone."""
    made = randomise(shallow())
    names = {"image": "image_classifier", "text": "text_classifier"}
    return {k: randomise(every_task.make(v, made)) for k, v in names.items()}


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


def test_text_logits_equal_transformers(tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        type_vocab_size=1,
        num_labels=len(every_task.LABELS),
        layer_norm_eps=1e-5,
    )
    theirs = transformers.RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
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
def test_pairs_are_packed_as_roberta_s(models):
    made = models["text"].preprocessor
    ids = made({"text": "ab", "second_text": "c"})["token_ids"]
    a, b, c = made.tokenizer("abc")[1:4]
    assert ids[:9].tolist() == [0, a, b, 2, 2, c, 2, 1, 1]


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
