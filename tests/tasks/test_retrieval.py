"""The matching task: pairs, labels, training, presets, bad input."""

import checkpoints
import every_task
import keras
import numpy as np
import peer
import pytest
import tensorflow as tf
import torch
from builders import SIDE
from builders import array
from builders import difference
from builders import fast
from builders import features
from builders import one_layer_each
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import retrieval
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import tokenizer
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.tasks.ranking import ranking_parts

IMAGE = np.full((20, 30, 3), 200, "uint8")
IDS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def drawing(objective="random_negatives"):
    """A preprocessor without a task around it."""
    return kbt.BridgeTowerRetrievalPreprocessor(
        tokenizer(), kbt.BridgeTowerImageConverter(SIDE), objective
    )


def contrastive_preprocessor():
    return every_task.preprocessor("contrastive")


@pytest.fixture(scope="module")
def scored():
    """A task that is asked but not changed."""
    return randomise(retrieval())


@slow_on("tensorflow", "jax")
def test_score_is_the_match_logit_of_predict(scored):
    x, _ = raw(5)
    logits = scored.predict(x, verbose=0)
    assert logits.shape == (5, 2) and logits.dtype == np.float32
    images = list(x["images"])
    scores = scored.score(images, x["text"])
    assert scores.shape == (5,) and scores.dtype == np.float32
    assert difference(scores, logits[:, 1]) <= 1e-6
    one = scored.score(images[1], x["text"][1])
    assert isinstance(one, float) and one == pytest.approx(scores[1], abs=1e-5)
    # One that is not in a list goes with each of the others.
    many = scored.score(images[0], np.array(x["text"]))
    assert many[0] == pytest.approx(scores[0], abs=1e-5)
    assert many.shape == (5,) and many[1] != pytest.approx(scores[1])
    many = scored.score(x["images"], x["text"][0])
    assert many[0] == pytest.approx(scores[0], abs=1e-5)
    assert scored.score([IMAGE], ["a"]).shape == (1,)


OBJECTIVES = (
    "random_negatives",
    "hard_negatives",
    "ranking",
    "ranking_and_matching",
)


def test_labelled_pairs():
    made = drawing()
    x, _ = raw(3)
    for match in ([1, 0, 1], np.array([True, False, True])):
        found, y = made(x, y={"image_id": [1, 2, 3], "match": match})
        np.testing.assert_array_equal(y, [1, 0, 1])
        assert y.dtype == np.int32 and set(found) == set(features())
    rows = tf.data.Dataset.from_tensor_slices((x, {"match": [1, 0, 1]}))
    for (_, single), expected in zip(rows.map(made), [1, 0, 1], strict=True):
        assert int(single) == expected


@pytest.mark.parametrize(
    "objective, y, message",
    [
        ("random_negatives", {"match": [0, 2, 1]}, r"\[0, 2, 1\]"),
        ("random_negatives", {"match": [0.0, 1, 1]}, "integers. Received"),
        ("random_negatives", {"match": [0, 1]}, r"y of shape \(2,\), texts of"),
        ("random_negatives", [0, 1], r"one image id.*y of shape \(2,\)"),
        ("hard_negatives", [[0], [1], [2]], r"ids of shape \(3, 1\)"),
        ("ranking", {"match": [0, 1, 1]}, "must hold image ids.*'ranking'"),
    ],
)
def test_labels_that_are_refused(objective, y, message):
    x, _ = raw(3)
    with pytest.raises(ValueError, match=message):
        drawing(objective)(x, y=y)


def test_image_ids():
    ids = [3, -1, 2**31 - 1, 2**31, "3"]
    found = [int(as_image_ids([i])[0]) for i in ids]
    assert found[:3] == ids[:3] and len(set(found)) == 5
    strings = as_image_ids(np.array(["a", "é", "a"]))
    assert strings.dtype == np.int32 and strings[0] == strings[2] != strings[1]
    (mapped,) = tf.data.Dataset.from_tensors(["a", "é", "a"]).map(as_image_ids)
    np.testing.assert_array_equal(mapped, strings)


@slow_on("jax", "tensorflow")
@pytest.mark.parametrize(
    "objective", some_everywhere(OBJECTIVES, "hard_negatives")
)
def test_fit(objective, tmp_path):
    x, _ = raw(4)
    values = {"ways": "three_way", **one_layer_each()}
    model = fast(retrieval(objective, 8, **values))
    before = {w.path: array(w) for w in model.weights}
    history = model.fit(x, IDS, batch_size=4, verbose=0).history
    moved = {w.path for w in model.weights if difference(w, before[w.path])}
    assert moved == {w.path for w in model.trainable_weights}
    ranks = objective.startswith("ranking")
    learning = {"random_negatives": {"itm"}, "hard_negatives": {"itm", "itc"}}
    learning = learning.get(objective, {"rank"})
    heads = {p.split("_head")[0] for p in moved if "_head/" in p}
    assert heads == learning
    assert any("patch_embedding" in p for p in moved)
    assert any("token_embedding" in p for p in moved)
    names = {"loss", "accuracy"}
    if objective in ("hard_negatives", "ranking_and_matching"):
        other = "rank" if ranks else "itc"
        names = {f"{h}_{m}" for h in ("itm", other) for m in names} | {"loss"}
        # Of equal weight.
        total = np.add(history["itm_loss"], history[f"{other}_loss"])
        np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert set(history) == names
    assert np.isfinite(list(history.values())).all()
    assert model.output.shape == (None, 1 if ranks else 2)

    model.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "preset")
    assert copy.preprocessor.objective == objective
    assert copy.get_config()["ways"] == "three_way"
    for weight, other in zip(copy.weights, model.weights, strict=True):
        assert difference(weight, other) == 0


@slow_on("tensorflow", "jax")
def test_evaluate():
    x, _ = raw(4)
    model = fast(randomise(retrieval("hard_negatives", 8)))
    names = {"loss"} | {
        f"{head}_{name}"
        for head in ("itm", "itc")
        for name in ("loss", "accuracy")
    }
    found = model.evaluate(x, IDS, batch_size=4, verbose=0, return_dict=True)
    assert set(found) == names
    # The contrastive loss draws nothing, and is the mean of both directions.
    made, _ = model.preprocessor(x, y=IDS)
    parts = ranking_parts(model)
    text, image = (
        array(part({k: made[k] for k in names})["embeddings"])
        for part, names in (
            (parts.text, ("token_ids", "padding_mask")),
            (parts.image, ("images",)),
        )
    )
    scores = np.exp(array(model.heads["itc"].logit_scale)) * text @ image.T
    both = [
        np.diag(s - np.log(np.exp(s).sum(1, keepdims=True)))
        for s in (scores, scores.T)
    ]
    assert found["itc_loss"] == pytest.approx(-np.mean(both), abs=1e-5)


def test_every_backend_tracks_the_same_weights():
    for objective in OBJECTIVES:
        model = retrieval(objective, 8)
        heads = {w.path for w in model.heads.weights}
        paths = [w.path for w in model.weights]
        assert heads <= set(paths) and len(paths) == len(set(paths))
        tower = {w.path for w in model.backbone.weights}
        assert set(paths) == heads | tower
        # What is drawn comes from the preprocessor, so there is no state.
        assert not [v.path for v in model.variables if "seed_gen" in v.path]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder of transformers with three heads, and the matching model."""
    path = tmp_path_factory.mktemp("theirs") / "model"
    return path, checkpoints.with_all_heads(path)["itm"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


@slow_on("tensorflow", "jax")
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


@slow_on("tensorflow")
def test_new_heads_are_named(tmp_path):
    vqa().save_to_preset(tmp_path / "preset")
    with pytest.warns(UserWarning, match="head `itm`, `rank`"):
        task = kbt.BridgeTowerRetrieval.from_preset(
            tmp_path / "preset", objective="ranking"
        )
    assert task.preprocessor.objective == "ranking"
    with pytest.warns(UserWarning, match="head `itm`, `itc`"):
        kbt.BridgeTowerRetrieval.from_preset(
            tmp_path / "preset", objective="hard_negatives", projection_dim=8
        )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"objective": "hard_negatives"}, "a width.*projection_dim=None"),
        ({"objective": "other"}, "Received: objective='other'"),
        ({"projection_dim": 8, "ways": "one_way"}, "ways='one_way'"),
        ({"preprocessor": drawing(), "objective": "ranking"}, "ve='ranking'"),
        ({"preprocessor": preprocessor()}, "`preprocessor` must have objecti"),
    ],
)
def test_values_that_do_not_fit_each_other(values, message):
    with pytest.raises(ValueError, match=message):
        kbt.BridgeTowerRetrieval(shallow(), **values)


@pytest.mark.parametrize("make", [drawing, contrastive_preprocessor])
def test_a_batch_of_one_is_warned_about(make):
    with pytest.warns(UserWarning, match="no negatives"):
        make()(raw(1)[0], y=[1])
