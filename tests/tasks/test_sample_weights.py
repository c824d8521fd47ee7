"""Sample weights, one for each row, against formulas in NumPy."""

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import array
from builders import eager
from builders import fast
from builders import features
from builders import randomise
from builders import raw
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import tokenizer
from keras import ops

import keras_bridgetower as kbt

ANSWERS = ["yes", "no", "red"]
# Of the four rows that every batch is cut from.
RNG = np.random.default_rng(3)
IMAGE_IDS = np.array([4, 7, 4, 9], "int32")
TOKENS = np.array(
    [[3, 6, -100], [0, 1, 2], [-100] * 3, [5, -100, -100]], "int32"
)
PAIRS = np.array([[1, 0, 0]] * 4, "int32")


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def unit(width=5):
    x = normal(4, width)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


LOGITS = normal(4, 3)
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
    "vqa": (
        lambda b: kbt.BridgeTowerVQA(b, answers=ANSWERS), SCORES, LOGITS, soft
    ),
    "number": (
        kbt.BridgeTowerTextRegressor, NUMBERS, LOGITS[:, :1], squares
    ),
    "three_way": (
        lambda b: kbt.BridgeTowerContrastive(b, None, 5),
        IMAGE_IDS, EMBEDDINGS, THREE_WAY,
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
    "padded": np.array([1, 1, 0, 0], "float32"),
    "fractions": np.array([0.5, 0.25, 1, 0.1], "float32"),
}


@pytest.fixture(scope="module")
def shared():
    return shallow()


def cut(values, rows):
    return keras.tree.map_structure(lambda x: x[rows], values)


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


@pytest.mark.parametrize("name", some_everywhere(CASES, "pretraining"))
@slow_on("jax")
def test_the_loss_weighs_rows(name, shared):
    make, y, y_pred, values = CASES[name]
    task = make(shared)
    for count in (1, 3, 4):
        some_y, some_pred = cut((y, y_pred), slice(count))
        for kind, weights in WEIGHTS.items():
            weights = None if weights is None else weights[:count]
            found = task.compute_loss(None, some_y, some_pred, weights)
            wanted = expected(some_y, some_pred, values, weights, count)
            assert float(array(found)) == pytest.approx(
                wanted, rel=1e-5, abs=1e-6
            ), (kind, count)


@LONG_ELSEWHERE
@pytest.mark.parametrize("name", CASES)
def test_metrics_leave_out_rows_of_weight_0(name, shared):
    make, y, y_pred, _ = CASES[name]
    task = make(shared)
    place = np.array([0, 1, 2, 0, 0])

    def results(rows, weights):
        some_y, some_pred = cut((y, y_pred), rows)
        task.reset_metrics()
        found = task.compute_metrics(None, some_y, some_pred, weights)
        return {k: float(array(v)) for k, v in found.items()}

    whole = results(place[:3], np.ones(3, "float32"))
    filled = results(place, np.array([1, 1, 1, 0, 0], "float32"))
    for metric in whole:
        if not metric.endswith("loss"):
            assert filled[metric] == pytest.approx(whole[metric], abs=1e-6)


@FASTEST
@pytest.mark.parametrize("name", ["pretraining", "vqa"])
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


def penalized():
    """A task whose regularization adds 3.0 to the loss of every batch."""
    task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    task.trainable_weights[0].regularizer = lambda w: 3.0 + 0.0 * ops.sum(w)
    return eager(task, keras.optimizers.SGD(1.0))


# Weights of 8 rows, and how many rows the loss of a batch is divided by.
COUNTED = {
    # As Keras defines the loss: a row of weight 0 is a row.
    "zeros": ([0.5, 1, 0, 1, 0, 2, 1, 1], 8),
    # Rows that only pad the batch are none.
    "both": ([0.5, 1, 0, 1, 2, 1, -0.0, -0.0], 6),
}


@slow_on("jax")
@pytest.mark.parametrize("name", some_everywhere(COUNTED, "both"))
def test_the_logged_loss_is_the_minimized_one(name):
    weights, rows = COUNTED[name]
    weights, task = np.array(weights, "float32"), penalized()
    x = features(task.backbone, batch=8)
    y = np.random.default_rng(5).random((8, 3)).astype("float32")
    logits = task.predict(x, verbose=0)
    loss = (weights * soft(y, logits, None)).sum() / rows + 3.0
    bias = task.heads["vqa"].trainable_weights[-1]
    before = array(bias).copy()
    found = task.evaluate(x, y, 8, sample_weight=weights, verbose=0)
    assert found[0] == pytest.approx(loss, rel=1e-5)
    history = task.fit(
        *(x, y, 8), sample_weight=weights, verbose=0, shuffle=False
    ).history
    assert history["loss"] == pytest.approx([loss], rel=1e-5)
    slope = weights[:, None] * (1 / (1 + np.exp(-logits)) - y)
    np.testing.assert_allclose(
        before - array(bias), slope.sum(0) / rows, atol=1e-5
    )


# Compiles for 20 seconds there.
@slow_on("jax")
def test_short_and_padded_batches_weigh_the_losses_of_heads(shared):
    objectives = ("mlm", "itc")
    made = kbt.BridgeTowerPretrainingPreprocessor(
        tokenizer(),
        kbt.BridgeTowerImageConverter(SIDE),
        objectives=objectives,
        max_masks=6,
    )
    task = kbt.BridgeTowerPretraining(
        shared, objectives=objectives, projection_dim=8
    )
    randomise(task)
    # Compiled: in a graph of TensorFlow the number of rows is not static.
    fast(task)
    x, y = keras.tree.map_structure(array, made(raw(6)[0])[:2])
    y = {name: y[name] for name in objectives}
    given = {"batch_size": 4, "verbose": 0, "return_dict": True}
    both = [
        task.evaluate(*cut((x, y), rows), **given)
        for rows in (slice(0, 4), slice(4, 6))
    ]
    wanted = {
        name: (4 * both[0][name] + 2 * both[1][name]) / 6
        for name in ("loss", "mlm_loss", "itc_loss")
    }
    assert both[0]["mlm_loss"] != pytest.approx(both[1]["mlm_loss"], rel=1e-3)
    found = task.evaluate(x, y, **given)
    x, y = cut((x, y), [0, 1, 2, 3, 4, 5, 4, 5])
    weights = np.array([1] * 6 + [-0.0] * 2, "float32")
    padded = task.evaluate(x, y, sample_weight=weights, **given)
    for losses in (found, padded):
        some = {name: losses[name] for name in wanted}
        assert some == pytest.approx(wanted, rel=1e-5)
