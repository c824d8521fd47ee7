"""The ten tasks, with raw inputs and labels for each."""

from typing import Any
from typing import NamedTuple

import keras
import numpy as np
from builders import ANSWERS
from builders import SIDE
from builders import array
from builders import long_but
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
        name: of its class, without the prefix.
        y: labels of the four samples, or None.
        values, to_preprocess: dicts of values for both constructors.
        names: of the raw inputs.
        pictures: int, pictures in each sample.
    """

    name: str
    y: Any = None
    values: dict = {}
    to_preprocess: dict = {}
    names: tuple = ("images", "text")
    pictures: int = 1

    @property
    def task(self):
        return getattr(kbt, f"BridgeTower{self.name}")

    @property
    def preprocessor(self):
        return getattr(kbt, f"BridgeTower{self.name}Preprocessor")


WIDTH, STILL = {"projection_dim": 8}, {"dropout": 0.0}
NUMBERS = [0.5, 2.0, -1.0, 3.0]
IMAGES, TEXT = ("images",), ("text",)
TASKS = {
    "vqa": Case("VQA", ANSWERS, to_preprocess={"answers": ANSWERS}),
    "masked_lm": Case("MaskedLM"),
    "retrieval": Case("Retrieval", IDS),
    "contrastive": Case("Contrastive", IDS, WIDTH),
    "entailment": Case("Entailment", ["neutral", "entailment"] * 2),
    "nlvr2": Case("NLVR2", [0, 1, 1, 0], STILL, pictures=2),
    "pretraining": Case("Pretraining", IDS, WIDTH, {"max_masks": 6}),
    "image_classifier": Case(
        "ImageClassifier", CLASSES, {}, {"labels": LABELS}, IMAGES
    ),
    "text_classifier": Case(
        "TextClassifier", CLASSES, STILL, {"labels": LABELS}, TEXT
    ),
    "text_regressor": Case("TextRegressor", NUMBERS, STILL, {}, TEXT),
}


def preprocessor(name, **values):
    case, parts = TASKS[name], {}
    if "text" in case.names:
        parts["tokenizer"] = tokenizer(24)
    if "images" in case.names:
        parts["image_converter"] = kbt.BridgeTowerImageConverter(SIDE)
    return case.preprocessor(**parts | case.to_preprocess | values)


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
    return long_but(TASKS, *some)


def step(name, task):
    """Train the task by one step, which draws the same each time."""
    x, y = rows(raw(name), 0, BATCH), rows(TASKS[name].y, 0, BATCH)
    if task.preprocessor.reads_step:
        x["step"] = 0
    task.train_on_batch(x, y)


def features(name, task):
    """Features of the four samples, the same each time."""
    x = raw(name)
    if task.preprocessor.reads_step:
        x["step"] = 0
    made = task.preprocess_samples(x)
    return made[0] if isinstance(made, tuple) else made


def rows(values, start, stop):
    """Some rows of arrays and lists."""
    if isinstance(values, dict):
        return {k: rows(v, start, stop) for k, v in values.items()}
    return None if values is None else values[start:stop]


def state(task):
    """Values of the weights and of the optimizer, by path."""
    return {v.path: array(v) for v in variables(task)}


def raw(name):
    """Raw inputs of four samples: lists of arrays of two sizes, and texts."""
    case, rng = TASKS[name], np.random.default_rng(0)
    images = []
    for height in (40, 40, 50, 50):
        size = (case.pictures, height, 30, 3)
        sample = list(rng.integers(0, 256, size).astype("uint8"))
        images.append(sample if case.pictures > 1 else sample[0])
    given = {"images": images, "text": TEXTS}
    return {key: given[key] for key in case.names}


def as_arrays(x):
    """Pictures of one size and texts as arrays."""
    x = {**x}
    if "images" in x:
        x["images"] = keras.tree.map_structure(lambda im: im[:40], x["images"])
    return {name: np.array(values) for name, values in x.items()}


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
