"""Statements about two pictures."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import MANY_STEPS
from builders import SIDE
from builders import array
from builders import backbone
from builders import classifier_head
from builders import difference
from builders import fast
from builders import features
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import tokenizer
from convert import official

import keras_bridgetower as kbt

BLACK = np.zeros((20, 30, 3), "uint8")
KINDS = ("weight", "bias")
WHITE = np.full((30, 20, 3), 255, "uint8")


def preprocessor():
    return kbt.BridgeTowerNLVR2Preprocessor(
        tokenizer(24), kbt.BridgeTowerImageConverter(SIDE)
    )


def nlvr2():
    return kbt.BridgeTowerNLVR2(shallow(), preprocessor())


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
def judge():
    """A task that is asked but not changed."""
    return randomise(nlvr2())


@slow_on("jax")
def test_logits_equal_the_closed_form():
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
    # 4D in, 1.5 x 2D hidden, two logits.
    assert head.weights[0].shape == (64, 48) and found.shape == (3, 2)
    # The order of the pictures counts.
    swapped = {**made, "images": made["images"][:, ::-1].copy()}
    assert difference(judge(swapped, training=False), expected) > 1e-3


def test_each_tower_runs_once(judge, monkeypatch):
    runs = []
    call = kbt.Tower.call

    def counted(tower, *args, **kwargs):
        runs.append(tower.name)
        return call(tower, *args, **kwargs)

    monkeypatch.setattr(kbt.Tower, "call", counted)
    judge(inputs(), training=False)
    assert sorted(runs) == ["image_tower", "text_tower"]


def test_dropout_of_the_head():
    model = kbt.BridgeTowerNLVR2(shallow(), dropout=0.5)
    made = {k: keras.ops.convert_to_tensor(v) for k, v in inputs().items()}
    still = array(model(made, training=False))
    assert difference(model(made, training=True), still) > 0


@pytest.mark.filterwarnings("ignore:.*takes features only")
@slow_on("tensorflow")
def test_the_authors_head_opens(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    state = official.save(tmp_path / "nlvr2.ckpt", "nlvr2")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "New and random")
        model = kbt.BridgeTowerNLVR2.from_preset(tmp_path / "nlvr2.ckpt")
    assert (model.head_hidden_scale, model.dropout) == (2, 0.1)
    key = "nlvr2_classifier"
    names = [f"{key}.{i}.{kind}" for i in (0, 1, 3) for kind in KINDS]
    weights = [state[name].numpy().T for name in names]
    x = np.random.default_rng(0).normal(size=(3, 256)).astype("float32")
    found = model.heads["nlvr2"](x, training=False)
    assert difference(found, classifier_head(x, weights)) <= 1e-5
    rows = array(model.backbone.fusion.type_embedding)
    table = state["token_type_embeddings.weight"].numpy()
    np.testing.assert_array_equal(rows, table)


@slow_on("tensorflow", "jax")
def test_forms_of_compare(judge, tmp_path):
    from PIL import Image

    Image.fromarray(BLACK).save(tmp_path / "a.png")
    true, share = judge.compare(tmp_path / "a.png", WHITE, "is it red?")
    assert isinstance(true, bool) and 0.5 <= share < 1
    # Bytes of a file are one picture, of whichever type they are.
    encoded = bytearray((tmp_path / "a.png").read_bytes())
    assert judge.compare(encoded, WHITE, "is it red?") == (true, share)
    many = judge.compare(
        [BLACK, WHITE], [Image.fromarray(WHITE), BLACK], ["is it red?", "why?"]
    )
    assert many[0][0] == true
    assert many[0][1] == pytest.approx(share, abs=1e-6)
    x = pairs(2)
    logits = judge.predict(x, verbose=0).astype("float64")
    found = judge.compare(x["images"][:, 0], x["images"][:, 1], x["text"])
    assert [t for t, _ in found] == (logits[:, 1] > logits[:, 0]).tolist()
    margin = np.abs(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(
        [s for _, s in found], 1 / (1 + np.exp(-margin)), atol=1e-6
    )


@pytest.mark.parametrize(
    "left, right, statements, message",
    [
        ([BLACK], [WHITE] * 2, ["a"], "left: 1, right: 2, statements: 1"),
        ([BLACK] * 2, [WHITE] * 2, ["a"], "left: 2, right: 2, statements: 1"),
        (BLACK, [WHITE] * 2, ["a"] * 3, "left: a single one, right: 2"),
        ([], [], [], "at least one picture"),
        ([BLACK], [WHITE], [" "], r"not be empty.*text\[0\]"),
        (BLACK, "/no/such.png", "a", r"images\[1\].*/no/such.png"),
    ],
)
def test_bad_questions(judge, left, right, statements, message):
    with pytest.raises(ValueError, match=message):
        judge.compare(left, right, statements)


@pytest.mark.parametrize(
    "images, text",
    [
        (BLACK, "a"),
        ([BLACK], ["a"]),
        ([BLACK, WHITE], ["a", "b"]),
        ([[BLACK] * 3], ["a"]),
        ([[BLACK, WHITE]], ["a", "b"]),
        ([[BLACK, WHITE]], "a"),
    ],
)
def test_pictures_that_are_no_pairs(images, text):
    with pytest.raises(ValueError, match="2 pictures each.*Received: images"):
        preprocessor()({"images": images, "text": text})


def test_pairs_in_every_place():
    made = preprocessor()
    x = pairs(3)
    eager = made(x)
    assert eager["images"].shape == (3, 2, SIDE, SIDE, 3)
    lists = made({**x, "images": [list(pair) for pair in x["images"]]})
    assert difference(lists, eager) == 0
    converter = made.image_converter
    assert difference(eager["images"][1, 1], converter(x["images"][1, 1])) == 0
    rows = tf.data.Dataset.from_tensor_slices(x)
    ((mapped),) = rows.batch(3).map(made)
    assert difference({k: v.numpy() for k, v in mapped.items()}, eager) == 0
    for i, single in enumerate(rows.map(made)):
        assert difference(single["images"].numpy(), eager["images"][i]) == 0
    single = made({"images": [BLACK, WHITE], "text": "a"})
    assert single["images"].shape == (2, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    "y", [[1, 0], [True, False], ["True", "False"], np.array([True, False])]
)
def test_forms_of_labels(y):
    made, x = preprocessor(), pairs(2)
    _, eager = made(x, y=y)
    assert eager.tolist() == [1, 0] and eager.dtype == np.int32
    rows = tf.data.Dataset.from_tensor_slices((x, tf.constant(y)))
    ((_, mapped),) = rows.batch(2).map(made)
    assert mapped.numpy().tolist() == [1, 0]


@pytest.mark.parametrize(
    "y, message",
    [
        ([0, 2], "ids from 0 to 1.*'False', 'True'.*Received: y=2"),
        (["True", "true"], "Received: y='true'"),
        ([0.0, 1.0], "dtype float64"),
    ],
)
def test_labels_that_are_refused(y, message):
    made, x = preprocessor(), pairs(2)
    with pytest.raises(ValueError, match=message):
        made(x, y=y)


def test_features_of_the_wrong_shape(judge):
    made = inputs()
    for images in (
        made["images"][:, 0],
        made["images"][:, :1],
        made["images"][..., :16, :16, :],
    ):
        with pytest.raises(ValueError, match=r"\(batch, 2, 32, 32, 3\)"):
            judge({**made, "images": images})
    with pytest.raises(ValueError, match="same batch size"):
        judge({**made, "images": made["images"][:2]})


@slow_on("tensorflow", "jax")
def test_fit():
    x, y = pairs(8), ["True", "False", "True", "True"] * 2
    model = fast(nlvr2(), jit_compile=MANY_STEPS)
    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    first = model.fit(rows, verbose=0).history
    ids = np.array([label == "True" for label in y])
    last = model.fit(x, ids, batch_size=4, epochs=4, verbose=0).history
    assert last["loss"][-1] < first["loss"][0]
    assert "accuracy" in last


def test_save_to_preset(tmp_path):
    model = randomise(
        kbt.BridgeTowerNLVR2(
            shallow(), preprocessor(), head_hidden_scale=1, dropout=0.2
        )
    )
    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerNLVR2.from_preset(str(tmp_path / "preset"))
    made = inputs()
    assert difference(copy(made), array(model(made))) == 0
    assert (copy.head_hidden_scale, copy.dropout) == (1, 0.2)
    x = pairs(2)
    assert difference(copy.preprocessor(x), model.preprocessor(x)) == 0
