"""Matching and contrast: pairs, labels, training, embeddings, bad input."""

import checkpoints
import every_task
import keras
import numpy as np
import peer
import pytest
import tensorflow as tf
import torch
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import array
from builders import assert_same_weights
from builders import contrastive
from builders import difference
from builders import fast
from builders import features
from builders import moved
from builders import one_layer_each
from builders import randomise
from builders import raw
from builders import retrieval
from builders import some_everywhere
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.retrieval import as_image_ids

IDS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def drawing(objective="random_negatives"):
    """A preprocessor without a task around it."""
    return kbt.BridgeTowerRetrievalPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), objective
    )


OBJECTIVES = (
    "random_negatives",
    "hard_negatives",
    "ranking",
    "ranking_and_matching",
)


def test_labelled_pairs():
    made = drawing()
    x, _ = raw(3)
    match = np.array([True, False, True])
    found, y = made(x, y={"image_id": [1, 2, 3], "match": match})
    np.testing.assert_array_equal(y, [1, 0, 1])
    assert y.dtype == np.int32 and set(found) == set(features())
    rows = tf.data.Dataset.from_tensor_slices((x, {"match": [1, 0, 1]}))
    for (_, single), expected in zip(rows.map(made), [1, 0, 1], strict=True):
        assert int(single) == expected


def test_image_ids():
    ids = [3, -1, 2**31 - 1, 2**31, "3"]
    found = [int(as_image_ids([i])[0]) for i in ids]
    assert found[:3] == ids[:3] and len(set(found)) == 5
    strings = as_image_ids(np.array(["a", "é", "a"]))
    assert strings.dtype == np.int32 and strings[0] == strings[2] != strings[1]
    (mapped,) = tf.data.Dataset.from_tensors(["a", "é", "a"]).map(as_image_ids)
    np.testing.assert_array_equal(mapped, strings)


@LONG_ELSEWHERE
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_fit(objective, tmp_path):
    x, _ = raw(4)
    values = {"ways": "three_way", **one_layer_each()}
    model = fast(retrieval(objective, 8, **values))
    fitted = {}

    def fit():
        fitted.update(model.fit(x, IDS, batch_size=4, verbose=0).history)

    changed = moved(model, fit)
    assert changed == {w.path for w in model.trainable_weights}
    ranks = objective.startswith("ranking")
    learning = {"random_negatives": {"itm"}, "hard_negatives": {"itm", "itc"}}
    learning = learning.get(objective, {"rank"})
    heads = {p.split("_head")[0] for p in changed if "_head/" in p}
    assert heads == learning
    names = {"loss", "accuracy"}
    if objective in ("hard_negatives", "ranking_and_matching"):
        other = "rank" if ranks else "itc"
        names = {f"{h}_{m}" for h in ("itm", other) for m in names} | {"loss"}
        # Of equal weight.
        total = np.add(fitted["itm_loss"], fitted[f"{other}_loss"])
        np.testing.assert_allclose(fitted["loss"], total, rtol=1e-5)
    assert set(fitted) == names
    assert np.isfinite(list(fitted.values())).all()
    assert model.output.shape == (None, 1 if ranks else 2)

    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "preset")
    assert copy.preprocessor.objective == objective
    assert copy.get_config()["ways"] == "three_way"
    assert_same_weights(copy, model)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder of transformers with three heads, and the matching model."""
    path = tmp_path_factory.mktemp("theirs") / "model"
    return path, checkpoints.with_all_heads(path)["itm"]


@LONG_ELSEWHERE
def test_equals_transformers(theirs, home):
    path, model = theirs
    x, inputs = peer.inputs(checkpoints.SIZE)
    with pytest.warns(UserWarning, match="features only"):
        ours = kbt.BridgeTowerRetrieval.from_preset(path)
    assert (ours.projection_dim, ours.ways) == (24, "three_way")
    match = np.array([1, 0], "int32")
    with torch.no_grad():
        expected = model(**inputs, labels=torch.tensor(match).long())
    fast(ours)
    found = keras.Model.predict(ours, x, verbose=0)
    assert difference(found, expected.logits.numpy()) <= 1e-5
    loss, _ = keras.Model.evaluate(ours, x, match, verbose=0)
    assert loss == pytest.approx(float(expected.loss), abs=1e-5)

    # A new ranking head is the row that says "match".
    with pytest.warns(UserWarning) as warned:
        ranking = kbt.BridgeTowerRetrieval.from_preset(
            path, objective="ranking"
        )
    assert not any("Newly initialized" in str(w.message) for w in warned)
    for weight in ("kernel", "bias"):
        own, matching = (
            array(getattr(ranking.heads[name].output_dense, weight))
            for name in ("rank", "itm")
        )
        assert difference(own, matching[..., 1:]) == 0


def test_a_batch_of_one_is_warned_about():
    for made in (drawing(), every_task.preprocessor("contrastive")):
        with pytest.warns(UserWarning, match="no negatives"):
            made(raw(1)[0], y=[1])


IMAGE = np.zeros((20, 30, 3), "uint8")
KINDS = {"three_way": ("text", "image", "fused"), "two_way": ("text", "image")}


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed."""
    return {ways: randomise(fast(contrastive(ways))) for ways in KINDS}


@pytest.fixture(scope="module")
def asked(models):
    return models["three_way"]


@pytest.mark.parametrize("ways", some_everywhere(KINDS, "three_way"))
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


@LONG_ELSEWHERE
def test_as_a_vector_store_calls_it(asked):
    embedder = kbt.BridgeTowerEmbedder(asked, batch_size=2)
    texts, images = ["is it red?", "is it blue?", "why?"], [IMAGE] * 3
    documents = embedder.embed_documents(texts)
    assert [len(row) for row in documents] == [8, 8, 8]
    assert all(type(number) is float for row in documents for number in row)
    query = embedder.embed_query("is it blue?")
    np.testing.assert_allclose(query, documents[1], atol=1e-6)
    pairs = embedder.embed_image_text_pairs(texts, images)
    np.testing.assert_allclose(pairs, asked.embed(images, texts), atol=1e-6)
    assert embedder.embed_documents(np.array(texts)) == documents
    # Stores pass empty lists.
    assert embedder.embed_documents([]) == []
    assert embedder.embed_image_text_pairs([], []) == []
    for wrong in ("abc", None, {"a": 1}):
        with pytest.raises(ValueError, match="`texts` must be a list"):
            embedder.embed_documents(wrong)
        with pytest.raises(ValueError, match="`images` must be a list"):
            embedder.embed_image_text_pairs(["a"], wrong)
