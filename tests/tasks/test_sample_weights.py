"""Sample weights, one for each row, against formulas in NumPy."""

import keras
import numpy as np
import pytest
from builders import array
from builders import shallow
from builders import slow_on

import keras_bridgetower as kbt

ANSWERS = ["yes", "no", "red"]
# Of the four rows that every batch is cut from.
RNG = np.random.default_rng(3)
IMAGE_IDS = np.array([4, 7, 4, 9], "int32")
TOKENS = np.array(
    [[3, 6, -100], [0, 1, 2], [-100] * 3, [5, -100, -100]], "int32"
)
PAIRS = np.array([[1, 0, 0]] * 4, "int32")
MATCH = np.array([1, 0, 0, 1], "int32")


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def unit(width=5):
    x = normal(4, width)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


LOGITS = {2: normal(4, 2), 3: normal(4, 3), 16: normal(4, 16)}
PAIR_LOGITS, TOKEN_LOGITS = normal(4, 3, 2), normal(4, 3, 8)
EMBEDDINGS = {"text": unit(), "image": unit(), "fused": unit()}
TWO = {name: EMBEDDINGS[name] for name in ("text", "image")}
SCORES, NUMBERS = RNG.random((4, 3)).astype("float32"), normal(4, 1)


def log_softmax(x):
    x = x.astype("float64")
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def soft(y, logits, counted):
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(-1)


def classes(y, logits, counted):
    losses = -np.take_along_axis(log_softmax(logits), y[..., None], -1)[..., 0]
    return losses.reshape(len(y), -1).mean(1)


def squares(y, numbers, counted):
    return ((y - numbers) ** 2).mean(-1)


def tokens(y, logits, counted):
    hidden = (y != -100) & counted[:, None]
    found = np.take_along_axis(
        log_softmax(logits), np.maximum(y, 0)[..., None], -1
    )
    losses = -np.where(hidden, found[..., 0], 0).sum(1)
    return losses * counted.sum() / max(hidden.sum(), 1)


def contrast(*ways):
    def values(ids, embeddings, counted):
        same = (ids[:, None] == ids[None]) & counted
        target = same / np.maximum(same.sum(1, keepdims=True), 1)
        found = []
        for a, b in ways:
            products = embeddings[a].astype("float64") @ embeddings[b].T
            # The scale that a new head starts from.
            logs = log_softmax(np.where(counted, products / 0.07, -1e9))
            found.append(-(target * logs).sum(1))
        return np.mean(found, axis=0)

    return values


TWO_WAY = contrast(("text", "image"), ("image", "text"))
THREE_WAY = contrast(("text", "image"), ("text", "fused"), ("image", "fused"))
CASES = {
    "vqa": (lambda b: kbt.BridgeTowerVQA(b, answers=ANSWERS), SCORES,
            LOGITS[3], soft),
    "masked_lm": (kbt.BridgeTowerMaskedLM, TOKENS, TOKEN_LOGITS, tokens),
    "entailment": (kbt.BridgeTowerEntailment, MATCH, LOGITS[3], classes),
    "nlvr2": (kbt.BridgeTowerNLVR2, MATCH, LOGITS[2], classes),
    "number": (kbt.BridgeTowerTextRegressor, NUMBERS, LOGITS[3][:, :1],
               squares),
    "random_negatives": (kbt.BridgeTowerRetrieval, MATCH, LOGITS[2], classes),
    "ranking": (
        lambda b: kbt.BridgeTowerRetrieval(b, objective="ranking"),
        0 * MATCH, LOGITS[16], classes,
    ),
    "two_way": (
        lambda b: kbt.BridgeTowerContrastive(b, None, 5, "two_way"),
        IMAGE_IDS, TWO, TWO_WAY,
    ),
    "three_way": (
        lambda b: kbt.BridgeTowerContrastive(b, None, 5),
        IMAGE_IDS, EMBEDDINGS, THREE_WAY,
    ),
    "hard_negatives": (
        lambda b: kbt.BridgeTowerRetrieval(b, None, "hard_negatives", 5),
        {"itm": PAIRS, "itc": IMAGE_IDS},
        {"itm": PAIR_LOGITS, "itc": TWO},
        {"itm": classes, "itc": TWO_WAY},
    ),
    "pretraining": (
        lambda b: kbt.BridgeTowerPretraining(
            b, negatives="hard_negatives", projection_dim=5
        ),
        {"mlm": TOKENS, "itm": PAIRS, "itc": IMAGE_IDS},
        {"mlm": TOKEN_LOGITS, "itm": PAIR_LOGITS, "itc": TWO},
        {"mlm": tokens, "itm": classes, "itc": TWO_WAY},
    ),
}  # fmt: skip
WEIGHTS = {
    "none": None,
    "ones": np.ones(4, "float32"),
    "padded": np.array([1, 1, 0, 0], "float32"),
    "fractions": np.array([0.5, 0.25, 1, 0.1], "float32"),
}


@pytest.fixture(scope="module")
def shared():
    return shallow()


def cut(values, count):
    return keras.tree.map_structure(lambda x: x[:count], values)


def expected(y, y_pred, values, weights, count):
    weights = np.ones(count) if weights is None else weights
    if isinstance(values, dict):
        return sum(
            expected(y[name], y_pred[name], rows, weights, count)
            for name, rows in values.items()
        )
    rows = values(y, y_pred, weights != 0)
    assert rows.shape == (count,)
    return (weights * rows).mean()


@pytest.mark.parametrize("name", CASES)
@slow_on("jax")
def test_the_loss_weighs_rows(name, shared):
    make, y, y_pred, values = CASES[name]
    task = make(shared)
    for count in (1, 2, 3, 4):
        some_y, some_pred = cut(y, count), cut(y_pred, count)
        for kind, weights in WEIGHTS.items():
            weights = cut(weights, count) if weights is not None else None
            found = task.compute_loss(None, some_y, some_pred, weights)
            wanted = expected(some_y, some_pred, values, weights, count)
            assert float(array(found)) == pytest.approx(
                wanted, rel=1e-5, abs=1e-6
            ), (kind, count)


@pytest.mark.parametrize("name", CASES)
def test_metrics_leave_out_rows_of_weight_0(name, shared):
    make, y, y_pred, _ = CASES[name]
    task = make(shared)
    place = np.array([0, 1, 2, 0, 0])

    def results(rows, weights):
        some_y, some_pred = keras.tree.map_structure(
            lambda x: x[rows], (y, y_pred)
        )
        task.reset_metrics()
        found = task.compute_metrics(None, some_y, some_pred, weights)
        return {k: float(array(v)) for k, v in found.items()}

    whole = results(place[:3], np.ones(3, "float32"))
    filled = results(place, np.array([1, 1, 1, 0, 0], "float32"))
    for metric in whole:
        if not metric.endswith("loss"):
            assert filled[metric] == pytest.approx(whole[metric], abs=1e-6)


def test_metrics_of_ones_own_keep_their_counts(shared):
    task = kbt.BridgeTowerVQA(shared, answers=ANSWERS)
    task.seen = keras.metrics.Mean("own_loss")
    task.seen.update_state([1.0, 2.0])
    weights = np.array([1, 1, 0, 0], "float32")
    task.compute_metrics(None, SCORES, LOGITS[3], weights)
    assert float(array(task.seen.count)) == 2


@pytest.mark.parametrize("name", ["masked_lm", "hard_negatives", "vqa"])
def test_weights_of_other_shapes_are_refused(name, shared):
    make, y, y_pred, _ = CASES[name]
    task = make(shared)
    for weights in (np.ones((4, 3), "float32"), np.ones(3, "float32"),
                    np.float32(1)):  # fmt: skip
        with pytest.raises(ValueError, match="one weight for each sample"):
            task.compute_loss(None, y, y_pred, weights)
    column = np.array([[0.5], [0.25], [1], [0.1]], "float32")
    found = task.compute_loss(None, y, y_pred, column)
    wanted = task.compute_loss(None, y, y_pred, column[:, 0])
    assert float(array(found)) == pytest.approx(float(array(wanted)))
