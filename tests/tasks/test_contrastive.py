"""The contrastive task: one space for texts, pictures and both."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import MANY_STEPS
from builders import SIDE
from builders import array
from builders import backbone
from builders import bert
from builders import contrastive
from builders import difference
from builders import eager
from builders import fast
from builders import features
from builders import moved
from builders import randomise
from builders import raw
from builders import slow_on
from builders import tokenizer
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import pack_embeddings
from keras_bridgetower.tasks.inference import Forward

IMAGE = np.zeros((20, 30, 3), "uint8")
KINDS = {
    "three_way": ("text", "image", "fused"),
    "two_way": ("text", "image"),
}


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed."""
    return {ways: randomise(fast(contrastive(ways))) for ways in KINDS}


@pytest.fixture(scope="module")
def asked(models):
    return models["three_way"]


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that are embedded."""
    sizes = []
    run = Forward.__call__

    def record(self, x):
        sizes.append({len(value) for value in x.values()})
        return run(self, x)

    monkeypatch.setattr(Forward, "__call__", record)
    return sizes


@pytest.mark.parametrize("ways", KINDS)
def test_outputs_in_closed_form(ways, models):
    """Head and normalisation in NumPy, on states of the parts."""
    model, x = models[ways], features()
    towers, head = model.backbone, model.heads["itc"]
    text = towers.text_tower({k: x[k] for k in ("token_ids", "padding_mask")})
    image = towers.image_tower(x["images"])
    # Transformers projects the image state, the authors take it raw.
    projected = towers.fusion.project_image(image)
    states = {
        "text": text[-1][:, 0],
        "image": {"three_way": projected, "two_way": image}[ways][-1][:, 0],
        "fused": towers(x)["pooled"],
    }
    found = model(x, training=False)
    assert tuple(found) == KINDS[ways]
    for kind in KINDS[ways]:
        dense = getattr(head, f"{kind}_dense")
        expected = array(states[kind]) @ array(dense.kernel) + array(dense.bias)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert difference(found[kind], expected) <= 1e-5


@slow_on("jax")
def test_embed_forms(asked, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    pictures = [tmp_path / "a.png", Image.fromarray(IMAGE), IMAGE]
    texts = ["is it red?", "why?", "is it red?"]
    for given in (
        {"images": pictures},
        {"texts": texts},
        {"images": pictures, "texts": texts},
    ):
        many = asked.embed(**given)
        assert many.shape == (3, 8) and many.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(many[0], many[2], atol=1e-6)
        one = asked.embed(**{k: v[0] for k, v in given.items()})
        assert one.shape == (8,)
        np.testing.assert_allclose(one, many[0], atol=1e-6)
        single = asked.embed(**{k: v[:1] for k, v in given.items()})
        assert single.shape == (1, 8)


@pytest.mark.parametrize("ways", KINDS)
@slow_on("jax")
def test_embed_equals_predict_in_any_batches(ways, models, batches):
    x, _ = raw(3)
    found = models[ways].predict(x, verbose=0)
    given = {
        "text": {"texts": x["text"]},
        "image": {"images": x["images"]},
        "fused": {"images": x["images"], "texts": x["text"]},
    }
    for kind in KINDS[ways]:
        for size, sizes in ((2, [{2}, {1}]), (8, [{4}])):
            batches.clear()
            embedded = models[ways].embed(**given[kind], batch_size=size)
            assert difference(embedded, found[kind]) <= 1e-5
            assert batches == sizes


def test_few_shapes_are_compiled(asked, monkeypatch):
    sizes = set()

    def record(self, x):
        sizes.add(len(x["token_ids"]))
        return x["token_ids"]

    monkeypatch.setattr(Forward, "__call__", record)
    for count in range(1, 18):
        found = asked.embed(texts=["a"] * count, batch_size=12)
        assert len(found) == count
    assert sizes == {1, 2, 4, 8, 12}


def test_nothing_runs_that_is_not_read(monkeypatch):
    model = fast(contrastive())
    parts = model.backbone

    def refuse(*args, **kwargs):
        raise AssertionError("run though it is not read")

    monkeypatch.setattr(parts.fusion, "join", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(parts.image_tower, "call", refuse)
        model.embed(texts="a")
    monkeypatch.setattr(parts.text_tower, "call", refuse)
    model.embed(images=IMAGE)
    with pytest.raises(AssertionError, match="not read"):
        model.embed(IMAGE, "a")


@pytest.mark.parametrize(
    "images, texts, values, message",
    [
        (None, None, {}, "`images` or `texts` must be given.*images=None"),
        (IMAGE, ["a", "b"], {}, "same number.*images: a single one, texts: 2"),
        ([IMAGE], ["a", "b"], {}, "Received: images: 1, texts: 2"),
        ([IMAGE], "a", {}, "Received: images: 1, texts: a single one"),
        (None, [], {}, r"`texts` must hold at least one.*texts=\[\]"),
        ([], None, {}, r"`images` must hold at least one.*images=\[\]"),
        (None, ["a", " "], {}, r"not be empty.*text\[1\]=' '"),
        (None, "a", dict(batch_size=0), "an integer from 1.*batch_size=0"),
        ("/no/such.png", None, {}, "/no/such.png"),
        ([IMAGE] * 5 + [IMAGE / 300], None, dict(batch_size=2), None),
    ],
)
def test_bad_input(asked, images, texts, values, message):
    if message is None:
        # The place among all pictures, not in its batch.
        images[5] = images[5] + np.inf
        message = r"Received: images\[5\]"
    with pytest.raises(ValueError, match=message):
        asked.embed(images, texts, **values)


def test_two_way_knows_no_pairs(models):
    with pytest.raises(ValueError, match="one by one.*ways='two_way'"):
        models["two_way"].embed(IMAGE, "a")


def test_without_a_preprocessor():
    model = kbt.BridgeTowerContrastive(backbone(), projection_dim=8)
    with pytest.raises(ValueError, match="`preprocessor` must be set"):
        model.embed(texts="a")
    with pytest.raises(ValueError, match="`ways` must be one of"):
        kbt.BridgeTowerContrastive(backbone(), ways="one_way")


@slow_on("jax")
def test_bert_reads_segments():
    preprocessor = kbt.BridgeTowerContrastivePreprocessor(
        tokenizer(),
        kbt.BridgeTowerImageConverter(SIDE),
        features=("images", "token_ids", "padding_mask", "segment_ids"),
    )
    model = kbt.BridgeTowerContrastive(
        backbone(text_encoder=bert(layers=2)), preprocessor, projection_dim=8
    )
    fast(model)
    texts = ["is it red?", "why?"]
    states = model.backbone.text_tower(preprocessor.text_features(texts))
    expected = model.heads["itc"]({"text": states[-1][:, 0]})["text"]
    assert difference(model.embed(texts=texts), expected) <= 1e-5


@pytest.mark.parametrize("ways", KINDS)
@pytest.mark.parametrize("ids", [None, ["a", "b", "a", "c"]])
@slow_on("jax")
def test_loss_and_accuracy_of_evaluate(ways, ids, models):
    model = models[ways]
    x, _ = raw(4)
    found = {
        k: v.astype("float64") for k, v in model.predict(x, verbose=0).items()
    }
    numbers = np.arange(4) if ids is None else np.array([0, 1, 0, 2])
    same = (numbers[:, None] == numbers[None]).astype("float64")
    scale = np.exp(array(model.heads["itc"].logit_scale))
    losses = []
    pairs = {
        "three_way": ("text image", "text fused", "image fused"),
        "two_way": ("text image", "image text"),
    }[ways]
    for a, b in map(str.split, pairs):
        logits = scale * found[a] @ found[b].T
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses.append(-(same / same.sum(1, keepdims=True) * logs).sum(1))
    best = (found["text"] @ found["image"].T).argmax(1)
    loss, accuracy = model.evaluate(x, ids, verbose=0)
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert accuracy == pytest.approx(same[np.arange(4), best].mean())


def test_without_ids_rows_of_other_replicas_are_negatives(asked, monkeypatch):
    monkeypatch.setattr(backend_ops, "all_gather", lambda x: (x, 6))
    found = {"text": np.zeros((3, 8), "float32")}
    assert array(asked.loss_inputs(None, found)[0]).tolist() == [6, 7, 8]
    assert asked.metric_inputs([4, 4, 5], found)[0] == [4, 4, 5]


@pytest.mark.parametrize(
    "y, expected",
    [
        ([3, 8, 3], [3, 8, 3]),
        (np.array([3, 8, 3]), [3, 8, 3]),
        (["a.png", "b.png", "a.png"], None),
    ],
)
def test_forms_of_ids(y, expected):
    made = contrastive().preprocessor
    x = {"images": np.stack([IMAGE] * 3), "text": ["a", "b", "c"]}
    _, eager = made(x, y=y)
    assert eager.dtype == np.int32 and eager[0] == eager[2] != eager[1]
    if expected is not None:
        assert eager.tolist() == expected
    assert set(made(x)) == {"images", "token_ids", "padding_mask"}
    rows = tf.data.Dataset.from_tensor_slices((x, tf.constant(y)))
    ((_, mapped),) = rows.batch(3).map(made)
    assert mapped.numpy().tolist() == eager.tolist()
    singles = [int(one) for _, one in rows.map(made)]
    assert singles == eager.tolist()


def test_ids_that_are_refused():
    made = contrastive().preprocessor
    x = {"images": [IMAGE] * 2, "text": ["a", "b"]}
    for y in (np.ones(2), np.ones((2, 2), int)):
        with pytest.raises(ValueError, match="integers or strings.*Received"):
            made(x, y=y)


def test_a_batch_of_one_is_warned_about_once(recwarn):
    made = contrastive().preprocessor
    x = {"images": IMAGE[None], "text": ["a"]}
    made(x)
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="one pair has no negatives.*larger"):
        made(x, y=[4])
    made(x, y=[4])
    assert not len(recwarn)


@slow_on("tensorflow", "jax")
def test_fit_learns_with_ids_and_without():
    x, _ = raw(8)
    model = fast(contrastive(), keras.optimizers.AdamW(1e-2), MANY_STEPS)
    # As the texts repeat.
    ids = np.arange(8) % 4
    before = model.evaluate(x, ids, batch_size=8, verbose=0)[0]
    history = model.fit(x, ids, batch_size=8, epochs=4, verbose=0).history
    assert history["loss"][-1] < before and "itc_accuracy" in history
    rows = tf.data.Dataset.from_tensor_slices(x)
    history = model.fit(rows.batch(8), epochs=6, verbose=0).history
    assert min(history["loss"]) < history["loss"][0]
    # What was compiled for embedding sees the weights of now.
    embedded = model.embed(x["images"], x["text"])
    model.fit(rows.batch(8), verbose=0)
    again = model.embed(x["images"], x["text"])
    expected = model.predict(x, verbose=0)["fused"]
    assert difference(again, expected) <= 1e-5 < difference(embedded, expected)


@slow_on("jax")
@pytest.mark.parametrize("rate", [1e9, -1e9])
def test_a_step_of_fit_leaves_the_scale_in_its_limits(rate):
    model = contrastive("two_way")
    model.backbone.trainable = False
    head = model.heads["itc"]
    head.text_dense.trainable = head.image_dense.trainable = False
    eager(model, keras.optimizers.SGD(rate))
    assert len(model.trainable_variables) == 1
    x, _ = raw(4)
    model.fit(x, batch_size=4, verbose=0)
    scale = float(array(head.logit_scale))
    limits = np.log(2), np.log(1000)
    assert min(abs(scale - limit) for limit in limits) <= 1e-6


@pytest.mark.parametrize("ways", KINDS)
@slow_on("jax")
def test_what_the_loss_does_not_read_stays(ways):
    x, _ = raw(4)
    model = eager(contrastive(ways))
    changed = moved(model, lambda: model.fit(x, batch_size=4, verbose=0))
    assert changed == {w.path for w in model.trainable_weights}
    assert any(path.startswith("fusion/") for path in changed) == (
        ways == "three_way"
    )


@FASTEST
def test_mixed_bfloat16():
    x, _ = raw(4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = fast(contrastive())
    finally:
        keras.config.set_dtype_policy("float32")
    full = fast(contrastive())
    full.set_weights(model.get_weights())
    a, b = (m.predict(x, verbose=0) for m in (full, model))
    for kind in KINDS["three_way"]:
        assert b[kind].dtype == np.float32
        np.testing.assert_allclose(
            np.linalg.norm(b[kind], axis=1), 1, rtol=1e-5
        )
        assert np.linalg.norm(a[kind] - b[kind]) / 2 <= 3e-2
    embedded = model.embed(texts=x["text"])
    assert embedded.dtype == np.float32
    assert difference(embedded, b["text"]) <= 1e-5
    packed = pack_embeddings(b, model.heads["itc"].logit_scale)
    assert np.isfinite(float(array(ContrastiveLoss()(np.arange(4), packed))))


@slow_on("tensorflow", "jax")
def test_save_and_load(models, tmp_path):
    x, _ = raw(3)
    for ways, model in models.items():
        expected = model.predict(x, verbose=0)
        model.save_to_preset(tmp_path / ways)
        copy = kbt.BridgeTowerContrastive.from_preset(tmp_path / ways)
        assert (copy.ways, copy.projection_dim) == (ways, 8)
        fast(copy)
        assert difference(copy.predict(x, verbose=0), expected) <= 1e-6
        assert difference(copy.embed(texts=x["text"]), expected["text"]) <= 1e-5
    with pytest.warns(UserWarning, match="the head itc.*with other values"):
        kbt.BridgeTowerContrastive.from_preset(
            tmp_path / "two_way", projection_dim=6
        )
    model.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert difference(copy.predict(x, verbose=0), expected) <= 1e-6


@slow_on("tensorflow", "jax")
def test_as_a_vector_store_calls_it(asked):
    embedder = kbt.BridgeTowerEmbedder(asked, batch_size=2)
    texts = ["is it red?", "is it blue?", "why?"]
    documents = embedder.embed_documents(texts)
    assert [len(row) for row in documents] == [8, 8, 8]
    assert all(type(number) is float for row in documents for number in row)
    query = embedder.embed_query("is it blue?")
    np.testing.assert_allclose(query, documents[1], atol=1e-6)
    assert embedder.embed_documents([]) == []
    pairs = embedder.embed_image_text_pairs(texts, [IMAGE] * 3, batch_size=2)
    np.testing.assert_allclose(
        pairs, asked.embed([IMAGE] * 3, texts), atol=1e-6
    )
    with pytest.raises(ValueError, match="same number"):
        embedder.embed_image_text_pairs(texts=texts, images=[IMAGE])
    assert embedder.embed_image_text_pairs([], []) == []
    for given in (tuple(texts), np.array(texts)):
        assert embedder.embed_documents(given) == documents


@FASTEST
def test_an_embedder_takes_lists(asked):
    embedder = kbt.BridgeTowerEmbedder(asked)
    pairs = embedder.embed_image_text_pairs
    texts = "`texts` must be a list; use `embed_query` for one. Received: "
    images = "`images` must be a list; put a single one into a list. "
    path = pathlib.Path("a.png")
    for wrong in ("abc", b"abc", path, 3, None, (x for x in "abc"), {"a": 1}):
        for call in (embedder.embed_documents, lambda x: pairs(x, [IMAGE])):
            with pytest.raises(ValueError, match=texts):
                call(wrong)
        for call in (embedder.embed_images, lambda x: pairs(["a"], x)):
            with pytest.raises(ValueError, match=images):
                call(wrong)
    with pytest.raises(ValueError, match=images):
        embedder.embed_images(IMAGE)
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        pairs(["a"], [IMAGE], batch_size=0)
