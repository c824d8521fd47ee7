"""`fit` on unchanged streams of every form of records, on every backend."""

import every_task
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


# The records of each task, and the form of the stream's labels.
TASKS = {
    "vqa": ("vqa", "auto"),
    "masked_lm": ("captions", "none"),
    "contrastive": ("captions", "image_id"),
    "pretraining": ("captions", "auto"),
    "nlvr2": ("nlvr2", "auto"),
    "image_classifier": ("image_classification", "auto"),
    "text_regressor": ("text_classification", "number"),
}


def task_of(name, labels):
    """Return a small task with the labels of some records."""
    case = every_task.TASKS[name]
    named = {"answers", "labels"} & set(case.to_preprocess)
    values = dict.fromkeys(named, labels)
    if "text" in case.names:
        values["tokenizer"] = tokenizer()
    built = every_task.preprocessor(name, **values)
    return case.task(shallow(), built, **case.values)


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
    stream = stream_of(tmp_path, *TASKS[name])
    task = eager(task_of(name, stream.labels))
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
    message = "must have the classes of the task, in the same order"
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
    data = data.take(1)
    assert len(task.predict(data, verbose=0))
    places = [order.index(answer) for answer in ANSWERS]
    fixed = data.map(lambda x, y: (x, tf.gather(y, places, axis=1)))
    assert task.fit(fixed, verbose=0).history["loss"]
