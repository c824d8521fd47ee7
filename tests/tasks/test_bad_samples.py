"""Features and labels that do not fit a task: one sentence before a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ANSWERS
from builders import SIDE
from builders import array
from builders import features
from builders import preprocessor
from builders import raw
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss

IMAGE_SIZE = kbt.BridgeTowerImageConverter(SIDE)
SCORES = np.eye(4, dtype="float32")[:3]
POSITIONS = np.array([[1, 2], [1, 0], [2, 3]], "int32")
TOKENS = np.array([[7, 8], [9, -100], [5, 6]], "int32")
MATCH = np.array([0, 1, 1], "int32")
PAIRS = {"itm": np.array([[1, 0, 0]] * 3), "itc": np.arange(3)}


@pytest.fixture(scope="module")
def tasks():
    """Tasks that take features as they are, on one backbone."""
    made = shallow()
    return {
        "vqa": kbt.BridgeTowerVQA(made, answers=ANSWERS),
        "mlm": kbt.BridgeTowerMaskedLM(made),
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


LEFT = np.array([[0, 0, 1, 1, 1, 1]] * 3, "int32")
GAP = np.array([[1, 1, 0, 1, 1, 1]] * 3, "int32")
IDS = features()["token_ids"]
ONES = np.ones((3, 65), "int32")
BAD = [
    ("vqa", {}, 100 * SCORES, "soft scores from 0 to 1.*100.0"),
    ("vqa", {}, SCORES - 0.5, "soft scores from 0 to 1.*y with"),
    ("vqa", {"token_ids": changed(IDS, (1, 2), 300)}, SCORES,
     "`token_ids` must hold integers from 0 to 299.*300"),
    ("vqa", {"token_ids": changed(IDS, (1, 2), -1)}, SCORES, "with -1"),
    ("vqa", {"padding_mask": LEFT}, SCORES, "Pad at the end"),
    ("vqa", {"padding_mask": GAP}, SCORES, "`padding_mask` must be 1"),
    ("vqa", {"padding_mask": 2 * GAP}, SCORES, "`padding_mask` must be 1"),
    ("mlm", {}, changed(TOKENS, (0, 0), -3), "from 0 to 299, or -100.*-3"),
    ("mlm", {}, changed(TOKENS, (0, 0), 300), "from 0 to 299, or -100.*300"),
    ("mlm", {"mask_positions": changed(POSITIONS, (0, 0), 6)}, TOKENS,
     "`mask_positions` must hold integers from 0 to 5.*with 6"),
    ("entailment", {}, np.array([0, 1, 3]), "from 0 to 2.*y with 3"),
    ("ranking", {}, np.array([0, 16, 3]), "from 0 to 15.*y with 16"),
    ("hard", {}, {**PAIRS, "itm": 2 * PAIRS["itm"]}, "from 0 to 1.*with 2"),
]  # fmt: skip


@pytest.mark.parametrize("name, x, y, message", BAD)
def test_values_out_of_range(name, x, y, message, tasks):
    task, x = tasks[name], batch(name, **x)
    with pytest.raises(ValueError, match=message):
        task.train_on_batch(x, y)
    # In a graph TensorFlow wraps what is raised; the sentence is in it.
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    with pytest.raises(Exception, match=message):
        list(data.map(task.preprocess_samples))


def test_labels_of_several_objectives(tasks):
    task = kbt.BridgeTowerPretraining(
        tasks["vqa"].backbone, negatives="hard_negatives", projection_dim=8
    )
    y = {"mlm": TOKENS, **PAIRS}
    task.preprocess_samples({}, y)
    with pytest.raises(ValueError, match="from 0 to 299, or -100.*-3"):
        task.preprocess_samples({}, {**y, "mlm": TOKENS * 0 - 3})
    with pytest.raises(ValueError, match="from 0 to 1.*with 2"):
        task.preprocess_samples({}, {**y, "itm": 2 * PAIRS["itm"]})
    contrastive = kbt.BridgeTowerContrastive(tasks["vqa"].backbone)
    contrastive.preprocess_samples({}, 1000 * PAIRS["itc"])


def test_arrays_are_looked_at_before_fit(tasks):
    task, x = tasks["mlm"], batch("mlm")
    made, labels = task.preprocess_samples(x, TOKENS)
    assert made is x and labels is TOKENS
    x["mask_positions"] = POSITIONS + 9
    for run in (task.evaluate, task.fit):
        with pytest.raises(ValueError, match="`mask_positions` must hold"):
            run(x, TOKENS, verbose=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"padding_mask": LEFT}, "Pad at the end"),
        ({"token_ids": changed(IDS, (0, 0), 300)}, "from 0 to 299"),
        ({"padding_mask": LEFT[:1]}, "same batch size"),
        ({"padding_mask": np.int32(1)}, "same batch size"),
        ({"token_ids": 3}, "same batch size"),
        (
            {k: ONES for k in ("token_ids", "padding_mask")},
            "at most 64 tokens",
        ),
    ],
)  # fmt: skip
def test_inputs_of_a_call(change, message, tasks):
    for model in (tasks["vqa"], tasks["vqa"].backbone):
        with pytest.raises(ValueError, match=message):
            model(batch("vqa", **change))


@pytest.fixture(scope="module")
def asked():
    task = kbt.BridgeTowerVQA(shallow(), preprocessor())
    # A step is not to be traced before the first batch is read.
    task.compile(run_eagerly=True)
    return task


def rows(**given):
    return tf.data.Dataset.from_tensor_slices(given)


X, Y = raw(4)
DATA = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    "x, given, message",
    [
        (X, {"y": Y, "sample_weight": np.ones(2)}, "'sample_weight': 2"),
        (X, {"y": np.zeros((4, 5))}, r"soft scores \(batch, 4\)"),
        (DATA.batch(2), {"validation_data": DATA}, r"Batch it.*shape \(\)"),
        ({"images": X["images"][0], "text": "a"}, {}, "several samples"),
    ],
)
def test_what_fit_refuses(x, given, message, asked):
    with pytest.raises(Exception, match=message):
        asked.fit(x, verbose=0, **given)


def test_unbatched_features_and_pictures(tasks):
    single = tf.data.Dataset.from_tensor_slices((features(), SCORES))
    with pytest.raises(ValueError, match="Batch it"):
        tasks["vqa"].fit(single)
    task = kbt.BridgeTowerImageClassifier(
        tasks["vqa"].backbone,
        kbt.BridgeTowerImageClassifierPreprocessor(IMAGE_SIZE, ["a", "b"]),
    )
    data = rows(images=X["images"])
    for pictures in (data, rows(images=["a.png", "b.png"])):
        with pytest.raises(ValueError, match="Batch it"):
            task.fit(pictures.map(lambda x: (x, 1)))
    with pytest.raises(ValueError, match="needs labels that are classes"):
        tasks["hard"].fit(features(), PAIRS, class_weight={0: 1.0, 1: 2.0})


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
