"""`fit` of every task on unchanged streams, on every backend."""

import keras
import numpy as np
import pytest
import streams
import tensorflow as tf
from builders import ANSWERS
from builders import FASTEST
from builders import SIDE
from builders import array
from builders import eager
from builders import preprocessor
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.training.runs.checkpoint import Checkpoint

BATCH = 4


def both():
    return tokenizer(), kbt.BridgeTowerImageConverter(SIDE)


def text_classifier():
    built = kbt.BridgeTowerTextClassifierPreprocessor(
        tokenizer(), streams.LABELS["text_classification"]
    )
    return kbt.BridgeTowerTextClassifier(shallow(), built)


def image_classifier():
    built = kbt.BridgeTowerImageClassifierPreprocessor(
        kbt.BridgeTowerImageConverter(SIDE),
        streams.LABELS["image_classification"],
    )
    return kbt.BridgeTowerImageClassifier(shallow(), built)


def pretraining():
    built = kbt.BridgeTowerPretrainingPreprocessor(*both(), max_masks=6)
    return kbt.BridgeTowerPretraining(shallow(), built, projection_dim=8)


# The records of each task, the labels of the stream, and a model.
TASKS = {
    "vqa": (
        "vqa",
        "auto",
        lambda: kbt.BridgeTowerVQA(shallow(), preprocessor()),
    ),
    "masked_lm": (
        "captions",
        "none",
        lambda: kbt.BridgeTowerMaskedLM(
            shallow(), kbt.BridgeTowerMaskedLMPreprocessor(*both(), max_masks=6)
        ),
    ),
    "retrieval": (
        "captions",
        "auto",
        lambda: kbt.BridgeTowerRetrieval(
            shallow(), kbt.BridgeTowerRetrievalPreprocessor(*both())
        ),
    ),
    "contrastive": (
        "captions",
        "image_id",
        lambda: kbt.BridgeTowerContrastive(
            shallow(),
            kbt.BridgeTowerContrastivePreprocessor(*both()),
            projection_dim=8,
        ),
    ),
    "pretraining": ("captions", "auto", pretraining),
    "entailment": (
        "entailment",
        "auto",
        lambda: kbt.BridgeTowerEntailment(
            shallow(), kbt.BridgeTowerEntailmentPreprocessor(*both())
        ),
    ),
    "nlvr2": (
        "nlvr2",
        "auto",
        lambda: kbt.BridgeTowerNLVR2(
            shallow(), kbt.BridgeTowerNLVR2Preprocessor(*both())
        ),
    ),
    "image_classifier": ("image_classification", "auto", image_classifier),
    "text_classifier": ("text_classification", "auto", text_classifier),
    "text_regressor": (
        "text_classification",
        "number",
        lambda: kbt.BridgeTowerTextRegressor(
            shallow(), kbt.BridgeTowerTextRegressorPreprocessor(tokenizer())
        ),
    ),
}


def stream_of(folder, records, target="auto", **kwargs):
    """Return a stream of a few augmented samples of a kind of records."""
    rows = [streams.record(records, i) for i in range(6)]
    labels = None
    if target == "number":
        rows = [_graded(row) for row in rows]
        labels, target = ["similarity"], "auto"
    reader = streams.write(folder, rows, records, num_shards=2, labels=labels)
    change = transform("blip_randaug", SIDE)
    if records == "text_classification":
        change = None
    kwargs = {"remainder": "drop", **kwargs}
    return Stream(reader, BATCH, change, target=target, **kwargs)


def _graded(record):
    samples = [
        streams.Sample(s.id, s.text, (0,), (float(place),))
        for place, s in enumerate(record.samples)
    ]
    return streams.Record(record.key, (), tuple(samples), "s")


@pytest.mark.parametrize("name", some_everywhere(TASKS, "vqa", "pretraining"))
@slow_on("tensorflow", "jax")
def test_fit_trains_on_streams(name, tmp_path):
    records, target, make = TASKS[name]
    stream = stream_of(tmp_path, records, target)
    task = eager(make())
    before = [array(weight) for weight in task.trainable_weights]
    history = task.fit(
        stream.dataset(start=(0, 2)), epochs=1, steps_per_epoch=2, verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()
    moved = [
        (array(weight) != old).any()
        for weight, old in zip(task.trainable_weights, before, strict=True)
    ]
    assert np.mean(moved) > 0.8
    assert not stream.report.bad


@FASTEST
def test_padding_does_not_change_scores(tmp_path):
    records, target, make = TASKS["vqa"]
    task = eager(make())
    scores = []
    for remainder in ("keep", "pad"):
        stream = stream_of(
            tmp_path / remainder, records, target, remainder=remainder
        )
        data = stream.dataset(epochs=1)
        scores.append(task.evaluate(data, verbose=0, return_dict=True))
    # Copies of a row would change what is no round number of rows.
    assert stream.report.samples % BATCH
    assert scores[0] == pytest.approx(scores[1], rel=1e-6) != {}


@FASTEST
def test_labels_in_another_order_are_rejected(tmp_path):
    rows = [streams.record("vqa", i) for i in range(6)]
    order = [*ANSWERS[1:], ANSWERS[0]]
    reader = streams.write(tmp_path / "set", rows, "vqa", labels=order)
    change = transform("blip_randaug", SIDE)
    stream = Stream(reader, BATCH, change, remainder="drop")
    task = eager(kbt.BridgeTowerVQA(shallow(), preprocessor()))
    data = stream.dataset(epochs=1)
    own = stream_of(tmp_path / "own", "vqa").dataset(epochs=1)
    run = Checkpoint(tmp_path / "run", stream)
    message = "same order.*number 0 is 'no' for the records and 'yes' for"
    for call in (
        lambda: task.fit(data, verbose=0),
        lambda: task.fit(data.take(1).prefetch(1), verbose=0),
        lambda: task.fit(own, validation_data=data, verbose=0),
        lambda: task.evaluate(data, verbose=0),
        lambda: run.fit(task, 1, verbose=0),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    # Without labels that are read, or with labels put right, it is accepted.
    assert len(task.predict(data, verbose=0))
    places = [order.index(answer) for answer in ANSWERS]
    fixed = data.map(lambda x, y: (x, tf.gather(y, places, axis=1)))
    assert task.fit(fixed, verbose=0).history["loss"]


@slow_on("jax")
def test_fit_gets_the_numbered_batches(tmp_path):
    stream = stream_of(tmp_path, "vqa")
    losses = []
    task = eager(TASKS["vqa"][2](), "sgd")
    start = task.get_weights()
    task.fit(
        stream.dataset(start=(1, 1)),
        steps_per_epoch=2,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda _, logs: losses.append(logs["loss"])
            )
        ],
    )
    trained = task.get_weights()
    task.set_weights(start)
    number = stream.steps_per_epoch + 1
    for step in range(2):
        x, y = stream.batch(number + step)
        task.train_on_batch(x, y)
    for a, b in zip(trained, task.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert len(losses) == 2


def test_two_texts_become_two_inputs(tmp_path):
    stream = stream_of(tmp_path, "text_classification")
    x, y = stream.batch(0)
    assert set(x) == {"text", "second_text", "step"}
    assert all(t.startswith(b"a dog") for t in x["text"])
    assert all(t.startswith(b"cat so") for t in x["second_text"])
    assert y.dtype == "int32" and set(y.tolist()) <= {0, 1}


def test_one_label_is_a_regression(tmp_path):
    _, y = stream_of(tmp_path, "text_classification", "number").batch(0)
    assert y.dtype == "float32" and set(y.tolist()) <= {0.0, 1.0, 2.0}
