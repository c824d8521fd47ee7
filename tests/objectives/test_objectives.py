"""Pairs that objectives draw, losses and their metrics."""

import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import features
from builders import randomise
from builders import retrieval
from builders import slow_on
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.models import heads
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import pack_embeddings
from keras_bridgetower.objectives.pair_objectives import ITSELF
from keras_bridgetower.objectives.pair_objectives import NextSample
from keras_bridgetower.objectives.pair_objectives import make_objective

IDS = {
    "distinct": np.arange(7),
    "even": np.arange(8),
    "repeated": np.array([3, 3, 5, 7, 5, 3]),
    "equal": np.array([4, 4, 4]),
    "one": np.array([9]),
    "many": np.arange(40) // 2,
}
every_ids = pytest.mark.parametrize("ids", IDS.values(), ids=IDS)


@LONG_ELSEWHERE
@every_ids
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_random_negatives(processes, ids):
    """The last sample of a process is followed by the next process's first."""
    objective = make_objective("random_negatives")
    following = array(NextSample()(ops.array(ids)[:, None]))[:, 0]
    parts = [part for part in np.array_split(ids, processes) if len(part)]
    seen = set()
    for seed in range(20):
        match = []
        for i, part in enumerate(parts):
            drawn, labels = objective.draw((seed, i), part)
            np.testing.assert_array_equal(drawn, labels)
            again = objective.draw((seed, i), part)[0]
            np.testing.assert_array_equal(drawn, again)
            assert drawn.dtype == np.int32 and set(drawn) <= {0, 1}
            # Half of them, and the pairs that match anyway.
            fits = (part == np.roll(part, -1)).sum()
            assert 0 <= drawn.sum() - len(part) // 2 <= fits
            match += drawn.tolist()
        assert np.array(match)[following == ids].all()
        seen.add(tuple(match))
    assert len(seen) > 1 or processes > 1 or (following == ids).all()


@LONG_ELSEWHERE
@every_ids
def test_false_texts(ids):
    objective = make_objective("ranking")
    for seed in range(10):
        false, labels = objective.draw(seed, ids)
        assert false.shape == (len(ids), 15) and not labels.any()
        np.testing.assert_array_equal(objective.draw(seed, ids)[0], false)
        rows_of = false + np.arange(len(ids))[:, None]
        for own, rows in zip(ids, rows_of, strict=True):
            others = np.flatnonzero(ids != own)
            if len(others):
                assert (ids[rows] != own).all()
            if len(others) >= 15:
                assert len(set(rows.tolist())) == 15
    changed = objective.draw(0, ids)[0] != objective.draw(1, ids)[0]
    assert changed.any() or len(ids) == 1


@LONG_ELSEWHERE
@every_ids
def test_labels_of_hard_negatives(ids):
    objective = make_objective("hard_negatives")
    drawn, places, labels = objective.draw(0, ids)
    np.testing.assert_array_equal(drawn, ids)
    assert places.shape == (len(ids), 2)
    np.testing.assert_array_equal(objective.draw(0, ids)[1], places)
    alone = len(set(ids.tolist())) == 1
    if alone:
        assert (places == ITSELF).all()
    else:
        assert (0 <= places).all() and (places < 1).all()
        assert (places != places[0, 0]).any()
        assert (objective.draw(1, ids)[1] != places).all()
    np.testing.assert_array_equal(labels, [[1, alone, alone]] * len(ids))


def hard(rows, ids=None, seed=0, **changed):
    """Return the states, row numbers, and features of hard negatives."""
    ids = np.arange(rows, dtype="int32") if ids is None else ids
    _, places, _ = make_objective("hard_negatives").draw(seed, ids)
    states = np.arange(rows, dtype="float32")[:, None, None]
    mask = states[:, 0].astype("int32")
    drawn = {"image_id": ids, "negative_places": places} | changed
    text, image = (ops.convert_to_tensor(x) for x in (states, 100 + states))
    drawn = {k: ops.convert_to_tensor(v) for k, v in drawn.items()}
    return [text] * 2, [image] * 2, drawn | {"padding_mask": mask}


def pairs_of(batch, *embeddings):
    """Return the pairs `(rows, 3, 2)` of hard negatives, and the true ones."""
    tensors = [ops.convert_to_tensor(np.float32(x)) for x in embeddings]
    found, own = make_objective("hard_negatives").logits(
        fuse, {"itm": lambda x: x}, *batch, tensors
    )
    return array(found["itm"]), array(own)


def fuse(text, image, padding_mask):
    """Return `(pairs, 2)` twice: the text's row, and 100 plus the image's."""
    rows = text[-1][:, 0]
    assert difference(rows, ops.cast(padding_mask, "float32")) == 0
    assert difference(text[0], text[1]) == difference(image[0], image[1]) == 0
    return 2 * (ops.concatenate([rows, image[-1][:, 0]], axis=-1),)


@LONG_ELSEWHERE
def test_pairs_of_hard_negatives():
    ids = np.array([1, 2, 1, 3, 2, 4], "int32")
    rng = np.random.default_rng(0)
    text, image = rng.normal(size=(2, 6, 8)).astype("float32")
    drawn = []
    for seed, factor in enumerate([1.0] * 30 + [1e4]):
        pairs, own = pairs_of(hard(6, ids, seed), text, image, factor)
        rows = np.arange(6)
        np.testing.assert_array_equal(own, pairs[:, 0])
        np.testing.assert_array_equal(pairs[:, 0].T, [rows, 100 + rows])
        np.testing.assert_array_equal(pairs[:, 1, 0], rows)
        np.testing.assert_array_equal(pairs[:, 2, 1], 100 + rows)
        images = pairs[:, 1, 1].astype(int) - 100
        texts = pairs[:, 2, 0].astype(int)
        assert (ids[images] != ids).all() and (ids[texts] != ids).all()
        drawn.append((*images, *texts))
    assert len(set(drawn[:-1])) > 5
    # The last factor makes the hardest negative certain.
    scores = np.where(ids[:, None] == ids, -np.inf, text @ image.T)
    np.testing.assert_array_equal(images, scores.argmax(1))
    np.testing.assert_array_equal(texts, scores.argmax(0))


@LONG_ELSEWHERE
@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 1 - 2**-24])
def test_hard_negatives_are_drawn_by_the_softmax(place):
    rows = 6
    ids = np.array([0, 1, 2, 0, 3, 4], "int32")
    scores = np.random.default_rng(1).normal(size=(rows, rows))
    places = np.full((rows, 2), place, "float32")
    batch = hard(rows, ids, negative_places=places)
    pairs, _ = pairs_of(batch, np.eye(rows), scores.T, 1.0)
    found = pairs[:, 1, 1] - 100, pairs[:, 2, 0]
    for drawn, logits in zip(found, (scores, scores.T), strict=True):
        weights = np.exp(logits) * (ids[:, None] != ids)
        sums = weights.cumsum(1) / weights.sum(1, keepdims=True)
        # The first whose share of the sum reaches beyond the place.
        np.testing.assert_array_equal(drawn, (sums > place).argmax(1))


@LONG_ELSEWHERE
def test_hard_negatives_of_a_single_image():
    """Also if another process has other images, which do not match."""
    others = np.array([5, 5, 6, 7], "int32")
    batch = hard(4, np.full(4, 5, "int32"), image_id=others)
    pairs, _ = pairs_of(batch, np.eye(4), np.eye(4), 1.0)
    for drawn in np.moveaxis(pairs, 1, 0):
        np.testing.assert_array_equal(drawn[:, 0], [0, 1, 2, 3])
        np.testing.assert_array_equal(drawn[:, 1], [100, 101, 102, 103])


@LONG_ELSEWHERE
def test_gradients_reach_states_but_not_draw_scores():
    drawn = hard(3)[2] | {"padding_mask": ops.ones((3, 2), "int32")}
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(4, 3, 2, 4)).astype("float32")

    def loss(tensors):
        text, image, *vectors = tensors
        embeddings = (*(x[:, 0] for x in vectors), ops.ones(()))
        logits, _ = make_objective("hard_negatives").logits(
            lambda t, i, m: 2 * (t[0][:, 0] * i[0][:, 0],),
            {"itm": lambda x: x},
            *([text], [image], drawn, embeddings),
        )
        return ops.sum(logits["itm"] ** 2)

    text, image, *drawing = backend_ops.gradients(loss, list(arrays))
    assert np.abs(text[:, 0]).min() > 0 and np.abs(image[:, 0]).min() > 0
    assert all((g == 0).all() for g in drawing)


@LONG_ELSEWHERE
def test_drawn_pairs_score_as_given_pairs():
    x = features(batch=4)
    matching = randomise(retrieval())
    texts, images = np.divmod(np.arange(16), 4)
    pairs = {k: v[texts] for k, v in x.items()}
    pairs["images"] = x["images"][images]
    # Logits by text and image.
    given = matching.predict_features(pairs).reshape(4, 4, 2)

    def other(objective, **values):
        """Another task with the same backbone and matching head."""
        model = kbt.BridgeTowerRetrieval(
            matching.backbone, objective=objective, **values
        )
        own, same = (m.heads["itm"].output_dense for m in (model, matching))
        own.kernel.assign(array(same.kernel))
        own.bias.assign(array(same.bias))
        return model

    match = np.array([0, 1, 0, 1], "int32")
    found = matching.predict_features({**x, "match": match})
    assert difference(found, given[[0, 1, 2, 3], [1, 1, 3, 3]]) <= 1e-5

    # A new ranking head is the row that says "match".
    ranking = other("ranking")
    ranking.start_heads({"rank"})
    false = [[1, 2, 3] * 5, [0] * 15, [3] * 15, [0, 1, 2] * 5]
    false = np.array(false, "int32")
    away = false - np.arange(4, dtype="int32")[:, None]
    found = ranking.predict_features({**x, "false_texts": away})
    texts = np.concatenate([np.arange(4)[:, None], false], axis=1)
    expected = given[texts, np.arange(4)[:, None], 1]
    assert difference(found, expected) <= 1e-5
    # Both at once, and the matching head only shows the way.
    both = other("ranking_and_matching")
    both.start_heads({"rank"})
    assert not both.heads["itm"].trainable and both.heads["rank"].trainable
    found = both.predict_features({**x, "false_texts": away, "match": match})
    assert difference(found["rank"], expected) <= 1e-5
    expected = given[[0, 1, 2, 3], [1, 1, 3, 3]]
    assert difference(found["itm"], expected) <= 1e-5

    likened = other("hard_negatives", projection_dim=8)
    # With two images each negative is certain.
    x = {k: v[:2] for k, v in x.items()}
    drawn = {
        k: array(v)
        for k, v in hard(2)[2].items()
        if k in ("image_id", "negative_places")
    }
    found = likened.predict_features({**x, **drawn})["itm"]
    expected = given[[[0, 0, 1], [1, 1, 0]], [[0, 1, 0], [1, 0, 1]]]
    assert difference(found, expected) <= 1e-5


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 3, 7)).astype("float32")
# Two, none, three and one masked token.
LABELS = np.array([[3, 6, -100], [-100] * 3, [0, 1, 2], [5, -100, -100]])
IMAGE_IDS = np.array([4, 9, 4, 7, 9])
SCALE = 2.5
VQA_LOGITS = np.array([[2.0, -1.0, 0.5], [-80.0, 80.0, 0.0]], "float32")
VQA_SCORES = np.array([[0.3, 1.0, 0.0], [0.0, 1.0, 0.6]], "float32")


def unit(seed, rows=5, width=6):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")


EMBEDDINGS = {"fused": unit(3), "image": unit(2), "text": unit(1)}


def packed(ways):
    kinds = heads.embedding_kinds(ways)
    return pack_embeddings(
        {k: ops.convert_to_tensor(EMBEDDINGS[k]) for k in kinds},
        ops.convert_to_tensor(np.float32(SCALE)),
    )


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(array(found), expected, rtol=rtol)


def test_masked_lm_ignore_id():
    loss = MaskedLMLoss(ignore_id=-1)
    labels = np.where(LABELS < 0, -1, LABELS)
    close(loss(labels, LOGITS), array(MaskedLMLoss()(LABELS, LOGITS)), 1e-6)
    # Without a masked token.
    assert float(loss(np.full_like(LABELS, -1), LOGITS)) == 0


@slow_on("tensorflow")
def test_large_ids_stay_distinct():
    large = 2**30 + np.arange(5, dtype="int32")
    assert len(set(large.astype("float32").tolist())) == 1
    text, image = (EMBEDDINGS[k].astype("float64") for k in ("text", "image"))
    values = np.exp(SCALE) * text @ image.T
    shares = [np.exp(x) / np.exp(x).sum(axis=0) for x in (values, values.T)]
    expected = -np.mean([np.log(np.diag(x)) for x in shares])
    loss = ContrastiveLoss("two_way")
    close(loss(large, packed("two_way")), expected)
    # As labels of `fit`, too.
    inputs = keras.Input((13,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(
        loss=loss, metrics=[ContrastiveAccuracy("two_way")], jit_compile=False
    )
    found, accuracy = model.evaluate(array(packed("two_way")), large, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)
    best = (EMBEDDINGS["text"] @ EMBEDDINGS["image"].T).argmax(1)
    assert accuracy == pytest.approx(np.mean(best == np.arange(5)))


@pytest.mark.parametrize("ways", heads.WAYS)
def test_contrastive_accuracy(ways):
    accuracy = ContrastiveAccuracy(ways)
    best = (EMBEDDINGS["text"] @ EMBEDDINGS["image"].T).argmax(1)
    right = (IMAGE_IDS[best] == IMAGE_IDS).astype(float)
    assert 0 < right.mean() < 1
    accuracy.update_state(IMAGE_IDS, packed(ways))
    assert float(accuracy.result()) == pytest.approx(right.mean())
    all_equal = np.zeros(5, "int32")
    accuracy.update_state(all_equal, packed(ways))
    assert float(accuracy.result()) == pytest.approx((right.mean() + 1) / 2)


@pytest.mark.parametrize("direction", [1, -1])
def test_logit_scale_stays_within_its_limits(direction):
    head = heads.ContrastiveHead(4, "two_way")
    head.build({"text": (None, 6), "image": (None, 6)})
    assert float(array(head.logit_scale)) == pytest.approx(np.log(1 / 0.07))
    optimizer = keras.optimizers.SGD(1.0)
    gradient = ops.convert_to_tensor(np.float32(direction * 1e4))
    optimizer.apply([gradient], [head.logit_scale])
    limit = {1: np.log(2), -1: np.log(1000)}[direction]
    assert float(array(head.logit_scale)) == pytest.approx(limit, abs=1e-6)


def test_vqa_score_of_the_best_answer():
    score = kbt.VQAScore()
    score.update_state(VQA_SCORES, VQA_LOGITS)
    assert float(score.result()) == pytest.approx((0.3 + 1.0) / 2)
    score.update_state(VQA_SCORES[:1], VQA_LOGITS[:1])
    assert float(score.result()) == pytest.approx((0.3 + 1.0 + 0.3) / 3)
    score.reset_state()
    score.update_state(VQA_SCORES, VQA_LOGITS, np.array([3.0, 1.0]))
    assert float(score.result()) == pytest.approx((0.9 + 1.0) / 4)


@pytest.mark.parametrize("shape", [(2, 1), (2, 4)])
def test_vqa_targets_are_not_broadcast(shape):
    for measure in (kbt.VQALoss(), kbt.VQAScore()):
        with pytest.raises(ValueError, match="soft scores.*Received: y of"):
            measure(np.ones(shape, "float32"), VQA_LOGITS)
