"""Matching, contrast and judged lists: labels, training, losses, bad input."""

import math

import checkpoints
import every_task
import keras
import numpy as np
import peer
import pytest
import tensorflow as tf
import torch
from builders import FASTEST
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
from builders import shallow
from builders import slow_on
from sklearn.metrics import ndcg_score

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.retrieval import as_image_ids

IDS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_labelled_pairs():
    made, (x, _) = every_task.preprocessor("retrieval"), raw(3)
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
@pytest.mark.parametrize(
    "objective",
    ["random_negatives", "hard_negatives", "ranking", "ranking_and_matching"],
)
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
    assert_same_weights(copy, model)


@LONG_ELSEWHERE
def test_logits_and_loss_equal_transformers(tmp_path, home):
    model = checkpoints.theirs("itm")
    model.save_pretrained(tmp_path / "theirs")
    x, inputs = peer.inputs(checkpoints.SIZE)
    with pytest.warns(UserWarning, match="features only"):
        ours = fast(kbt.BridgeTowerRetrieval.from_preset(tmp_path / "theirs"))
    match = np.array([1, 0], "int32")
    with torch.no_grad():
        expected = model(**inputs, labels=torch.tensor(match).long())
    found = keras.Model.predict(ours, x, verbose=0)
    assert difference(found, expected.logits.numpy()) <= 1e-5
    loss, _ = keras.Model.evaluate(ours, x, match, verbose=0)
    assert loss == pytest.approx(float(expected.loss), abs=1e-5)


def test_a_batch_of_one_is_warned_about():
    for name in ("retrieval", "contrastive"):
        made = every_task.preprocessor(name)
        with pytest.warns(UserWarning, match="no negatives"):
            made(raw(1)[0], y=[1])


@LONG_ELSEWHERE
def test_two_way_vectors_in_closed_form():
    """Transformers projects the image state, the authors take it raw."""
    model, x = randomise(contrastive("two_way")), features()
    towers, head = model.backbone, model.heads["itc"]
    text = {k: x[k] for k in ("token_ids", "padding_mask")}
    states = towers.text_tower(text), towers.image_tower(x["images"])
    found = model(x, training=False)
    for kind, state in zip(("text", "image"), states, strict=True):
        kernel, bias = map(array, getattr(head, f"{kind}_dense").weights)
        expected = array(state[-1])[:, 0] @ kernel + bias
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert difference(found[kind], expected) <= 1e-5


@LONG_ELSEWHERE
def test_as_a_vector_store_calls_it():
    asked = randomise(contrastive())
    embedder = kbt.BridgeTowerEmbedder(asked, batch_size=2)
    texts = ["is it red?", "is it blue?", "why?"]
    images = [np.zeros((20, 30, 3), "uint8")] * 3
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


PRESET = "bridgetower_tiny_easy_retrieval"
GRADES = np.array([[3, 0, 1, 1], [0, 2, -1, 0], [1, 0, 0, 2]], "float32")
SCORES = np.array(
    [[0.3, -1.2, 0.9, 0.1], [2.0, 0.5, 9.0, -0.5], [0.0, 1.0, 1.0, -2.0]],
    "float32",
)


def listed():
    """Return grades and scores of each list, without what only fills it."""
    for grades, scores in zip(GRADES, SCORES, strict=True):
        yield grades[grades >= 0], scores[grades >= 0]


def places(scores):
    order = np.argsort(-scores, kind="stable")
    return np.argsort(order) + 1


def lambdas(grades, scores):
    """LambdaRank's loss and gradients, pair by pair (Burges, 2010)."""
    gain, share = 2**grades - 1, 1 / np.log2(1 + places(scores))
    order = enumerate(sorted(gain, reverse=True))
    best = sum(g / math.log2(i + 2) for i, g in order)
    loss, slopes = 0.0, np.zeros(len(grades))
    for i in range(len(grades)):
        for j in range(len(grades)):
            if grades[i] > grades[j]:
                change = (gain[i] - gain[j]) / best
                change *= share[i] - share[j]
                near = math.exp(scores[j] - scores[i])
                loss += abs(change) * math.log1p(near)
                pull = abs(change) * near / (1 + near)
                slopes[i] -= pull
                slopes[j] += pull
    return loss, slopes


def test_losses_in_closed_form():
    softmax, pairs = [], []
    for grades, scores in listed():
        logs = scores - np.log(np.exp(scores).sum())
        softmax.append(-(grades / grades.sum()) @ logs)
        pairs.append(lambdas(grades, scores)[0])
    for loss, wanted in (
        (kbt.ListwiseSoftmaxLoss(), softmax),
        (kbt.LambdaRankLoss(), pairs),
    ):
        found = array(loss.call(GRADES, SCORES))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert float(loss(GRADES, SCORES)) == pytest.approx(np.mean(wanted))
        unjudged = array(loss.call(np.zeros((1, 4)), SCORES[:1]))
        np.testing.assert_array_equal(unjudged, [0.0])


def test_updates_are_those_of_lambda_rank():
    """One step of SGD on the scores themselves."""
    layer = keras.layers.Dense(4, use_bias=False, kernel_initializer="zeros")
    scores = keras.Sequential([keras.Input((3,)), layer])
    layer.kernel.assign(SCORES)
    scores.compile(keras.optimizers.SGD(1.0), kbt.LambdaRankLoss())
    scores.fit(np.eye(3), GRADES, batch_size=3, verbose=0)
    steps = (SCORES - array(layer.kernel)) * 3
    for row, grades, (judged, given) in zip(
        steps, GRADES, listed(), strict=True
    ):
        _, slopes = lambdas(judged, given)
        np.testing.assert_allclose(row[grades >= 0], slopes, atol=1e-5)
        np.testing.assert_array_equal(row[grades < 0], 0.0)


@pytest.mark.parametrize("k", [2, None])
def test_ndcg_is_that_of_scikit_learn(k):
    metric = kbt.metrics.NDCG(k=k)
    metric.update_state(GRADES, SCORES)
    wanted = [
        # It would average over equal scores.
        ndcg_score([2**grades - 1], [-places(scores)], k=k)
        for grades, scores in listed()
    ]
    assert float(metric.result()) == pytest.approx(np.mean(wanted), abs=1e-6)


def test_undefined_scores_come_last():
    metric = kbt.metrics.NDCG()
    metric.update_state([[2.0, 0.0, 0.0]], [[math.nan] * 3])
    assert float(metric.result()) == pytest.approx(1 / math.log2(4))


@FASTEST
def test_other_shapes_are_rejected():
    with pytest.raises(ValueError, match="`k` must"):
        kbt.metrics.NDCG(k=0)
    for loss in (kbt.ListwiseSoftmaxLoss(), kbt.LambdaRankLoss()):
        with pytest.raises(ValueError, match="`y_true` must"):
            loss(np.ones((3, 1)), SCORES)


@LONG_ELSEWHERE
def test_scores_are_those_of_retrieval_and_of_a_reranker(tmp_path):
    task = kbt.BridgeTowerListRanking.from_preset(PRESET, list_size=3)
    retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 3, 64, 64, 3), "uint8")
    texts = ["a red square", "a blue square"]
    found = task.predict({"images": pictures, "text": texts}, verbose=0)
    wanted = [
        retrieval.score(list(row), text)
        for row, text in zip(pictures, texts, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    task.save_to_preset(tmp_path / "ranker")
    reranker = kbt.BridgeTowerReranker.from_preset(tmp_path / "ranker")
    ranked = reranker.rank(texts[0], list(pictures[0]))
    assert [one["corpus_id"] for one in ranked] == [*np.argsort(-found[0])]
    scores = [one["score"] for one in ranked]
    np.testing.assert_allclose(scores, np.sort(found[0])[::-1], atol=1e-4)


@slow_on("jax")
def test_a_step_trains_every_matrix():
    task = kbt.BridgeTowerListRanking(shallow(), list_size=3)
    task.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    x = features(batch=6)
    pictures = x["images"].reshape(2, 3, SIDE, SIDE, 3)
    x = {name: rows[::3] for name, rows in x.items()} | {"images": pictures}
    grades = np.array([[2, 0, 0], [0, 1, 2]], "float32")
    changed = moved(task, lambda: task.train_on_batch(x, grades))
    paths = {w.path for w in task.trainable_weights}
    kernels = {path for path in paths if path.endswith("kernel")}
    assert kernels and kernels <= changed


@FASTEST
def test_grades_and_lists_of_another_size_are_rejected():
    task = kbt.BridgeTowerListRanking.from_preset(PRESET, list_size=3)
    pictures = np.zeros((1, 3, 64, 64, 3), "uint8")
    x = {"images": pictures, "text": ["a"]}
    for grades in (
        *([[1, 0]], [[0, 0, 0]], [[1, -2, 0]], [[1, math.nan, 0]]),
        *([["a"] * 3], [1, 0, 2], [[31, 0, 0]]),
    ):
        with pytest.raises(ValueError, match="`y` must hold 3 grades"):
            task.preprocessor(x, y=grades)
    with pytest.raises(ValueError, match="`class_weight` must be left out"):
        task.fit(x, [[1, 0, 0]], class_weight={0: 1, 1: 2, 2: 1})
    pictures = pictures[:, :2]
    with pytest.raises(ValueError, match="which must be"):
        task.preprocessor({"images": pictures, "text": ["a"]}, y=[[1, 0]])
    with pytest.raises(ValueError, match="'list_size': 4"):
        kbt.BridgeTowerListRanking(
            task.backbone, task.preprocessor, list_size=4
        )
    with pytest.raises(ValueError, match="`list_size`"):
        kbt.BridgeTowerListRanking(task.backbone, None, list_size=0)


def test_losses_of_a_teacher_are_those_of_torch():
    rng = np.random.default_rng(0)
    told = rng.normal(size=(5, 4)).astype("float32")
    scores = rng.normal(size=(5, 4)).astype("float32")
    a, b = torch.tensor(told), torch.tensor(scores)
    margins = [x[:, :, None] - x[:, None, :] for x in (a, b)]
    off = ~torch.eye(4, dtype=torch.bool)
    wanted = ((margins[0] - margins[1]) ** 2)[:, off].mean()
    found = kbt.MarginMSELoss()(told, scores)
    assert difference(found, wanted) < 1e-5
    # Only differences of scores are learned.
    assert difference(kbt.MarginMSELoss()(told, told + 7), 0.0) < 1e-5
    for temperature in (1.0, 2.5):
        wanted = torch.nn.functional.kl_div(
            *(torch.log_softmax(x / temperature, -1) for x in (b, a)),
            reduction="batchmean",
            log_target=True,
        )
        loss = kbt.ListDistillationLoss(temperature)
        assert difference(loss(told, scores), wanted) < 1e-5
    # NaN is padding: shorter lists have the same losses.
    padded = np.pad(told, ((0, 0), (0, 2)), constant_values=np.nan)
    more = np.pad(scores, ((0, 0), (0, 2)), constant_values=3.0)
    for loss in (kbt.MarginMSELoss(), kbt.ListDistillationLoss()):
        assert difference(loss(padded, more), loss(told, scores)) < 1e-5
        with pytest.raises(ValueError, match="a grade for each score"):
            loss(told, scores[:, :3])
    with pytest.raises(ValueError, match="`temperature`"):
        kbt.ListDistillationLoss(0)
