"""The ten tasks, with raw inputs and labels for each."""

from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import SIDE
from builders import array
from builders import randomise
from builders import shallow
from builders import tokenizer

import keras_bridgetower as kbt

BATCH = 2
LABELS = ["cat", "dog", "owl"]
CLASSES = ["cat", "owl", "dog", "cat"]
IDS = np.array([7, 8, 8, 9])
TEXTS = ["is it red?", "is it blue?", "what colour is it?", "red or blue?"]


class Case(NamedTuple):
    """A task.

    Args:
        task: class of the task.
        preprocessor: class of its preprocessor.
        y: labels of the four samples, or None.
        values, to_preprocess: dicts of values for both constructors.
        names: of the raw inputs.
        pictures: int, pictures in each sample.
    """

    task: type
    preprocessor: type
    y: Any
    values: dict = {}
    to_preprocess: dict = {}
    names: tuple = ("images", "text")
    pictures: int = 1


TASKS = {
    "vqa": Case(
        kbt.BridgeTowerVQA,
        kbt.BridgeTowerVQAPreprocessor,
        ANSWERS,
        to_preprocess={"answers": ANSWERS},
    ),
    "masked_lm": Case(
        kbt.BridgeTowerMaskedLM, kbt.BridgeTowerMaskedLMPreprocessor, None
    ),
    "retrieval": Case(
        kbt.BridgeTowerRetrieval, kbt.BridgeTowerRetrievalPreprocessor, IDS
    ),
    "contrastive": Case(
        kbt.BridgeTowerContrastive,
        kbt.BridgeTowerContrastivePreprocessor,
        IDS,
        {"projection_dim": 8},
    ),
    "entailment": Case(
        kbt.BridgeTowerEntailment,
        kbt.BridgeTowerEntailmentPreprocessor,
        ["neutral", "entailment"] * 2,
    ),
    "nlvr2": Case(
        kbt.BridgeTowerNLVR2,
        kbt.BridgeTowerNLVR2Preprocessor,
        [0, 1, 1, 0],
        {"dropout": 0.0},
        pictures=2,
    ),
    "pretraining": Case(
        kbt.BridgeTowerPretraining,
        kbt.BridgeTowerPretrainingPreprocessor,
        IDS,
        {"projection_dim": 8},
        {"max_masks": 6},
    ),
    "image_classifier": Case(
        kbt.BridgeTowerImageClassifier,
        kbt.BridgeTowerImageClassifierPreprocessor,
        CLASSES,
        to_preprocess={"labels": LABELS},
        names=("images",),
    ),
    "text_classifier": Case(
        kbt.BridgeTowerTextClassifier,
        kbt.BridgeTowerTextClassifierPreprocessor,
        CLASSES,
        {"dropout": 0.0},
        {"labels": LABELS},
        names=("text",),
    ),
    "text_regressor": Case(
        kbt.BridgeTowerTextRegressor,
        kbt.BridgeTowerTextRegressorPreprocessor,
        [0.5, 2.0, -1.0, 3.0],
        {"dropout": 0.0},
        names=("text",),
    ),
}


def preprocessor(name):
    case, parts = TASKS[name], {}
    if "text" in case.names:
        parts["tokenizer"] = tokenizer(24)
    if "images" in case.names:
        parts["image_converter"] = kbt.BridgeTowerImageConverter(SIDE)
    return case.preprocessor(**parts, **case.to_preprocess)


def make(name, backbone=None, **kwargs):
    """The task."""
    case = TASKS[name]
    backbone = backbone or shallow()
    return case.task(backbone, preprocessor(name), **case.values, **kwargs)


def build(name, backbone=None):
    """The task, compiled and one step trained, so that slots hold values."""
    task = compiled(randomise(make(name, backbone)))
    step(name, task)
    return task


def compiled(task, **kwargs):
    """With momentum, and without tracing where that takes longer."""
    eager = {"run_eagerly": keras.config.backend() != "jax"}
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    task.compile(optimizer, **kwargs or eager)
    task.optimizer.build(task.trainable_variables)
    return task


def variables(task):
    return [*task.weights, *task.optimizer.variables]


def values(task):
    return [array(v) for v in variables(task)]


def restore(task):
    """The task as it was when `task.first` was taken."""
    for variable, first in zip(variables(task), task.first, strict=True):
        variable.assign(first)
    return task


def check_same(found, expected):
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def only(*some):
    """All tasks, the others than these in the long version."""
    slow = pytest.mark.slow
    return [
        name if name in some else pytest.param(name, marks=slow)
        for name in TASKS
    ]


def step(name, task):
    """Train the task by one step, which draws the same each time."""
    x, y = rows(raw(name), 0, BATCH), rows(TASKS[name].y, 0, BATCH)
    if task.preprocessor.reads_step:
        x["step"] = 0
    task.train_on_batch(x, y)


def rows(values, start, stop):
    """Some rows of arrays and lists."""
    if isinstance(values, dict):
        return {k: rows(v, start, stop) for k, v in values.items()}
    return None if values is None else values[start:stop]


def row(values, place):
    """One row of arrays and lists."""
    if isinstance(values, dict):
        return {k: row(v, place) for k, v in values.items()}
    return values[place]


def state(task):
    """Values of the weights and of the optimizer, by path."""
    variables = [*task.weights, *task.optimizer.variables]
    return {v.path: array(v) for v in variables}


def raw(name):
    """Raw inputs of four samples: lists of arrays of two sizes, and texts."""
    case, rng = TASKS[name], np.random.default_rng(0)
    images = [
        [
            rng.integers(0, 256, (height, 30, 3)).astype("uint8")
            for _ in range(case.pictures)
        ]
        for height in (40, 40, 50, 50)
    ]
    if case.pictures == 1:
        images = [image for (image,) in images]
    given = {"images": images, "text": TEXTS}
    return {key: given[key] for key in case.names}


def given(name):
    """Arguments of `fit` without any option."""
    x, y = raw(name), TASKS[name].y
    return {"x": x} | ({} if y is None else {"y": y})


def fit(task, name, epochs=2, **kwargs):
    """History, and what weights and slots are in the end."""
    kwargs = {"batch_size": BATCH, "verbose": 0} | given(name) | kwargs
    if isinstance(kwargs["x"], dict):
        # As other sources have the rows.
        kwargs.setdefault("shuffle", False)
    history = task.fit(epochs=epochs, **kwargs).history
    return history, values(task)


def everything(task, name):
    history, trained = fit(task, name)
    x = given(name)
    scores = task.evaluate(**x, batch_size=BATCH, return_dict=True, verbose=0)
    outputs = task.predict(x["x"], batch_size=BATCH, verbose=0)
    return history, trained, scores, outputs
