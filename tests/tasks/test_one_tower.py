"""Tasks of one tower alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import transformers
from builders import FASTEST
from builders import SIDE
from builders import array
from builders import backbone
from builders import difference
from builders import fast
from builders import features
from builders import moved
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal

IMAGE = np.zeros((20, 30, 3), "uint8")
LABELS = ["cat", "dog", "owl"]


def image_classifier(made=None):
    preprocessor = kbt.BridgeTowerImageClassifierPreprocessor(
        kbt.BridgeTowerImageConverter(SIDE), LABELS
    )
    return kbt.BridgeTowerImageClassifier(made or shallow(), preprocessor)


def text_classifier(made=None):
    preprocessor = kbt.BridgeTowerTextClassifierPreprocessor(
        tokenizer(24), LABELS
    )
    return kbt.BridgeTowerTextClassifier(made or shallow(), preprocessor)


def text_regressor(made=None):
    preprocessor = kbt.BridgeTowerTextRegressorPreprocessor(tokenizer(24))
    return kbt.BridgeTowerTextRegressor(made or shallow(), preprocessor)


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed, on one backbone."""
    made = randomise(backbone())
    return {
        "image": randomise(image_classifier(made)),
        "text": randomise(text_classifier(made)),
        "number": randomise(text_regressor(made)),
    }


def of_images():
    x, _ = raw(8)
    return {"images": x["images"]}


def of_texts():
    x, _ = raw(8)
    return {"text": x["text"]}


def of_pairs():
    x, _ = raw(8)
    return {"text": [t[:9] for t in x["text"]], "second_text": ["blue?"] * 8}


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


@pytest.mark.parametrize("classes", [3, 1])
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


@pytest.mark.parametrize("name, tower", [("image", "image"), ("text", "text")])
def test_only_one_tower_is_held_and_trained(name, tower, models):
    model = models[name]
    tower = getattr(model.backbone, f"{tower}_tower")
    (head,) = (model.heads[key] for key in model.heads)
    expected = {id(w) for w in (*tower.weights, *head.weights)}
    assert {id(w) for w in model.weights} == expected


@slow_on("jax")
def test_forms_of_classify(models):
    label, shares = models["image"].classify(IMAGE)
    assert list(shares) == LABELS and label == max(shares, key=shares.get)
    assert sum(shares.values()) == pytest.approx(1)
    [one, two] = models["image"].classify([IMAGE, IMAGE + 255])
    assert one[1] == pytest.approx(shares, abs=1e-6)
    assert two[1] != one[1]

    classify = models["text"].classify
    label, shares = classify("is it red?")
    assert classify(["is it red?"])[0][1] == pytest.approx(shares, abs=1e-6)
    label, pair = classify("is it red?", "no")
    assert pair != shares
    assert classify(["is it red?"], ["no"])[0][1] == pytest.approx(
        pair, abs=1e-6
    )
    rate = models["number"].rate
    number = rate("is it red?", "no")
    assert isinstance(number, float)
    assert rate(["is it red?"], ["no"]) == pytest.approx([number], abs=1e-6)


def test_pairs_are_packed_as_roberta_s(models):
    made = models["text"].preprocessor
    ids = made({"text": "ab", "second_text": "c"})["token_ids"]
    a, b, c = made.tokenizer("abc")[1:4]
    assert ids[:9].tolist() == [0, a, b, 2, 2, c, 2, 1, 1]
    ((mapped),) = (
        tf.data.Dataset.from_tensors({"text": ["ab"], "second_text": ["c"]})
    ).map(made)
    assert mapped["token_ids"].numpy()[0].tolist() == ids.tolist()


@pytest.mark.parametrize(
    "task, data, y",
    [
        (image_classifier, of_images, ["cat", "dog", "owl", "cat"] * 2),
        (text_classifier, of_pairs, np.array([0, 1, 2, 0] * 2)),
        (text_regressor, of_texts, [0.5, 2.0, -1.0, 3.0] * 2),
    ],
)
@slow_on("tensorflow", "jax")
def test_fit(task, data, y):
    x, model = data(), fast(task())
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    changed = moved(model, lambda: model.fit(rows, verbose=0))
    assert changed == {w.path for w in model.trainable_weights}
    first = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    model.fit(x, y, batch_size=4, epochs=5, verbose=0)
    last = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert last["loss"] < first["loss"]


def test_the_regression_s_loss_is_the_mean_squared_error():
    model = fast(text_regressor())
    x, y = of_texts(), np.array([0.5, 2.0, -1.0, 3.0] * 2)
    found = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    error = model.predict(x, batch_size=4, verbose=0)[:, 0] - y
    assert found["loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert found["mean_absolute_error"] == pytest.approx(
        np.abs(error).mean(), rel=1e-5
    )


@FASTEST
def test_save_to_preset(models, tmp_path):
    inputs = {"image": {"images": features()["images"]}}
    inputs["text"] = inputs["number"] = text_features()
    for name, model in models.items():
        folder = str(tmp_path / name)
        model.save_to_preset(folder)
        copy = type(model).from_preset(folder)
        found = copy(inputs[name], training=False)
        assert difference(found, model(inputs[name], training=False)) == 0
        assert getattr(copy, "labels", LABELS) == LABELS
        # The whole backbone is kept, not the one tower alone.
        whole = features()
        assert difference(copy.backbone(whole), model.backbone(whole)) == 0


def test_save_as_a_file(tmp_path):
    model = fast(image_classifier())
    model.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    whole = features()
    images = {"images": whole["images"]}
    assert difference(copy(images), model(images)) == 0
    assert difference(copy.backbone(whole), model.backbone(whole)) == 0


@pytest.mark.filterwarnings("ignore:New and random in this BridgeTowerImage")
def test_what_another_task_finds_in_the_preset(models, tmp_path):
    models["text"].save_to_preset(tmp_path / "text")
    with pytest.warns(UserWarning, match="there are no image_converter files"):
        task = kbt.BridgeTowerImageClassifier.from_preset(
            tmp_path / "text", labels=["a", "b"]
        )
    assert task.preprocessor is None
    with pytest.warns(UserWarning, match="head text_class.*with other values"):
        other = kbt.BridgeTowerTextClassifier.from_preset(
            tmp_path / "text", labels=["a", "b"]
        )
    assert other.labels == other.preprocessor.labels == ["a", "b"]
    with pytest.raises(ValueError, match="`labels` must be given"):
        kbt.BridgeTowerTextClassifier.from_preset("bridgetower_tiny_easy_vqa")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m["image"].classify([]), "at least one picture"),
        (lambda m: m["text"].classify(["a", " "]), r"empty.*text\[1\]"),
        (lambda m: m["text"].classify(["a", "b"], ["c"]), "2 and 1 texts"),
        (lambda m: m["text"].classify("a", ["c"]), "same number"),
        (lambda m: m["image"].preprocessor(IMAGE), "the key 'images'"),
        (lambda m: m["text"].preprocessor(["a"]), "the key 'text'"),
        (
            lambda m: m["image"].preprocessor({"images": [IMAGE]}, y=[3]),
            "ids from 0 to 2.*Received: y=3",
        ),
        (
            lambda m: m["text"].preprocessor({"text": ["a"]}, y=["cow"]),
            "Received: y='cow'",
        ),
        (
            lambda m: m["number"].preprocessor({"text": ["a"]}, y=["1.5"]),
            "one number for each sample",
        ),
        (
            lambda m: m["number"].preprocessor({"text": ["a"]}, y=[np.nan]),
            "must be finite",
        ),
        (lambda m: m["text"]({"token_ids": np.ones((1, 3))}), "padding_mask"),
        (
            lambda m: m["image"]({"images": np.ones((1, 16, 16, 3))}),
            r"shape \(batch, 32, 32, 3\)",
        ),
        (
            lambda m: kbt.BridgeTowerImageClassifier(m["image"].backbone),
            "`labels` must list.*Received: labels=None",
        ),
        (
            lambda m: kbt.BridgeTowerTextClassifier(
                m["text"].backbone, m["text"].preprocessor, ["a", "b"]
            ),
            "the same in both",
        ),
        (
            lambda m: kbt.BridgeTowerTextClassifier(
                m["text"].backbone, m["image"].preprocessor
            ),
            "must make the features",
        ),
        (
            lambda m: kbt.BridgeTowerTextClassifierPreprocessor(
                tokenizer(), ["a", "a"]
            ),
            "`labels` must be a list of distinct strings",
        ),
    ],
)
def test_bad_input(call, message, models):
    with pytest.raises(ValueError, match=message):
        call(models)
