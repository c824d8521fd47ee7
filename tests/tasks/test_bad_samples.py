"""Features and labels that do not fit a task: one sentence before a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ANSWERS
from builders import FASTEST
from builders import ONE_BACKEND
from builders import array
from builders import features
from builders import preprocessor
from builders import raw
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss

SCORES = np.eye(4, dtype="float32")[:3]
POSITIONS = np.array([[1, 2], [1, 0], [2, 3]], "int32")
TOKENS = np.array([[7, 8], [9, -100], [5, 6]], "int32")
PAIRS = {"itm": np.array([[1, 0, 0]] * 3), "itc": np.arange(3)}


@pytest.fixture(scope="module")
def tasks():
    """Tasks that take features as they are, on one backbone."""
    made = shallow()
    return {
        "vqa": kbt.BridgeTowerVQA(made, answers=ANSWERS),
        "mlm": kbt.BridgeTowerMaskedLM(made),
        "pretraining": kbt.BridgeTowerPretraining(made),
        "entailment": kbt.BridgeTowerEntailment(made),
        "ranking": kbt.BridgeTowerRetrieval(made, objective="ranking"),
        "hard": kbt.BridgeTowerRetrieval(made, None, "hard_negatives", 8),
    }


def batch(name, **changes):
    made = features()
    if name == "mlm":
        made["mask_positions"] = POSITIONS
    return {**made, **changes}


def changed(values, place, value):
    values = values.copy()
    values[place] = value
    return values


GAP = np.array([[1, 1, 0, 1, 1, 1]] * 3, "int32")
IDS = features()["token_ids"]
BAD = [
    ("vqa", {}, 100 * SCORES, "soft scores from 0 to 1"),
    ("vqa", {"token_ids": changed(IDS, (1, 2), 300)}, SCORES, "`token_ids`"),
    ("vqa", {"token_ids": changed(IDS, (1, 2), -1)}, SCORES, "`token_ids`"),
    ("vqa", {"padding_mask": GAP}, SCORES, "`padding_mask`"),
    ("vqa", {"padding_mask": 2 * GAP}, SCORES, "`padding_mask`"),
    ("mlm", {}, changed(TOKENS, (0, 0), -3), "from 0 to 299, or -100"),
    ("mlm", {}, changed(TOKENS, (0, 0), 300), "from 0 to 299, or -100"),
    (
        "mlm",
        {"mask_positions": changed(POSITIONS, (0, 0), 6)},
        TOKENS,
        "`mask_positions`.* from 0 to 5",
    ),
    ("entailment", {}, np.array([0, 1, 3]), "from 0 to 2.*y with 3"),
    ("ranking", {}, np.array([0, 16, 3]), "from 0 to 15.*y with 16"),
    ("entailment", {}, np.array(["a", "b", "c"]), "`y` must hold numbers"),
    ("vqa", {}, np.array(ANSWERS[:3]), "`y` must hold numbers"),
    ("hard", {}, {**PAIRS, "itm": ["no"] * 3}, "`y` must hold numbers"),
    ("hard", {}, {**PAIRS, "itm": 2 * PAIRS["itm"]}, "from 0 to 1.*with 2"),
]


@pytest.mark.parametrize("name, x, y, message", BAD)
def test_values_out_of_range(name, x, y, message, tasks):
    task, x = tasks[name], batch(name, **x)
    with pytest.raises(ValueError, match=message):
        task.train_on_batch(x, y)
    # In a graph TensorFlow wraps what is raised; the sentence is in it.
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    with pytest.raises(Exception, match=message):
        list(data.map(task.preprocess_samples))


def test_labels_that_nothing_makes_are_required(tasks):
    task, x = tasks["mlm"], batch("mlm")
    for call in (task.train_on_batch, task.test_on_batch, task.fit):
        with pytest.raises(ValueError, match="`y` must hold .*y=None"):
            call(x)


@FASTEST
def test_arguments_of_fit_that_are_refused(tasks):
    # A table may hold integers as objects.
    x = batch("mlm")
    made, labels = tasks["mlm"].preprocess_samples(x, TOKENS.astype(object))
    assert made is x and labels.dtype == object
    x["mask_positions"] = POSITIONS + 9
    for run in (tasks["mlm"].evaluate, tasks["mlm"].fit):
        with pytest.raises(ValueError, match="`mask_positions` must hold"):
            run(x, TOKENS, verbose=0)
    with pytest.raises(ValueError, match="'sample_weight': 2"):
        tasks["vqa"].fit(batch("vqa"), SCORES, sample_weight=np.ones(2))
    for name, y in (("hard", PAIRS), ("mlm", TOKENS)):
        with pytest.raises(ValueError, match="`class_weight` must be left out"):
            tasks[name].fit(batch(name), y, class_weight={0: 1.0, 1: 2.0})


@FASTEST
def test_rows_are_no_batches(tasks):
    task, (x, y) = kbt.BridgeTowerVQA(shallow(), preprocessor()), raw(4)
    rows = [{name: x[name][i] for name in x} for i in range(4)]
    of_features = [{k: v[0] for k, v in features().items()}] * 3
    for call in (
        lambda: task.fit(rows, verbose=0),
        lambda: task.fit(list(zip(rows, y, strict=True)), verbose=0),
        lambda: task.predict(rows, verbose=0),
        lambda: tasks["vqa"].predict(iter(of_features), verbose=0),
    ):
        with pytest.raises(ValueError, match="`x` must hold batches: a dict"):
            call()


@ONE_BACKEND
def test_ten_answers_are_spelled_as_the_evaluator_does():
    made = preprocessor(["yes", "2", "No", "don't know"])
    typed = ["Yes."] * 3 + ["two", "2"] + ["dont know\n"] + ["NO"] * 4
    found = made.targets(np.array([typed, ["Yes"] * 10, ["?"] * 10]))
    np.testing.assert_allclose(
        found, [[0.9, 0.6, 1, 0.3], [1, 0, 0, 0], [0] * 4]
    )
    # Of two answers that are compared as one, that which is spelled so.
    made = preprocessor(["Yes", "yes"])
    assert made.targets(np.array([["YES"] * 10])).tolist() == [[0, 1]]


def test_labels_keep_their_values_in_half_precision():
    logits = np.zeros((1, 1, 600), "float32")
    logits[..., 513] = 5
    tokens, scores = np.array([[513]]), np.array([[0.3]], "float32")
    zero = np.zeros((1, 1), "float32")

    def losses():
        return (
            float(array(MaskedLMLoss()(tokens, logits))),
            float(array(VQALoss()(scores, zero + 2))),
        )

    expected = losses()
    keras.config.set_floatx("bfloat16")
    try:
        assert losses() == expected
    finally:
        keras.config.set_floatx("float32")
