"""What `fit`, `evaluate` and `predict` read: all as from a `tf.data.Dataset`.

Each backend has ways of its own to read what Keras takes, so all of them run
this, PyTorch with every task.
"""

import contextlib
import functools
import itertools

import every_task
import keras
import numpy as np
import PIL.Image
import pytest
from builders import FASTEST
from every_task import BATCH
from every_task import TASKS
from every_task import check_same
from every_task import rows
from sources import EPOCHS
from sources import ROWS
from sources import SOURCES
from sources import Batches
from sources import dataset

ON_TORCH = keras.config.backend() == "torch"
# What tasks without pictures do not take.
OF_PICTURES = ("PIL", "tensors")
# What JAX and TensorFlow run each time: one source of each kind.
ELSEWHERE = (
    *("columns", "generator", "PyDataset", "DataLoader"),
    "grain MapDataset",
)
# Each says so when it ends, as Keras does of what has no length.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.fixture(scope="module")
def asked(trained, tmp_path_factory):
    """Tasks, their raw inputs, and what they make of a dataset of files."""
    folder = tmp_path_factory.mktemp("pictures")
    numbers = itertools.count()

    def stored(image):
        path = folder / f"{next(numbers)}.png"
        PIL.Image.fromarray(image).save(path)
        return str(path)

    @functools.cache
    def made(name):
        x, y = every_task.raw(name), TASKS[name].y
        files = {**x}
        if "images" in x:
            files["images"] = keras.tree.map_structure(stored, x["images"])
        return x, y, results(trained(name), dataset, files, y)

    return lambda name: (trained(name), *made(name))


def results(task, source, x, y):
    """Outputs; losses and metrics; and what two epochs lead to."""

    def ask(method, y=y, **kwargs):
        every_task.restore(task)
        given = source(x, y)
        if method == task.fit and "steps" in given:
            given["steps_per_epoch"] = given.pop("steps")
        if method == task.fit and isinstance(given["x"], dict):
            given["shuffle"] = False  # As other sources have the rows.
        return method(**given, verbose=0, **kwargs)

    outputs = ask(task.predict, y=None)
    scores = ask(task.evaluate, return_dict=True)
    history = ask(task.fit, epochs=EPOCHS).history
    return outputs, scores, history, every_task.values(task)


def cases(sources, quick):
    """Each source in each task, in the long version; a part of them always."""
    for name, case in TASKS.items():
        for source in sources:
            without = source in OF_PICTURES and "images" not in case.names
            always = quick(name, source) and not without
            marks = () if always else pytest.mark.slow
            yield pytest.param(name, source, marks=marks)


# Two pictures, draws without labels, no pictures; one that draws runs all.
FORMS = ("nlvr2", "masked_lm", "text_regressor")


def quick(name, source):
    if ON_TORCH:
        loaded = source == "DataLoader" and name in FORMS
        return name == "retrieval" or loaded
    return name == "text_classifier" and source in ELSEWHERE


@pytest.mark.parametrize("name, source", cases(SOURCES, quick))
def test_raw_inputs(name, source, asked):
    """Raw inputs in `fit`, `evaluate` and `predict`."""
    if source in OF_PICTURES and "images" not in TASKS[name].names:
        pytest.skip("the task takes no pictures")
    task, x, y, expected = asked(name)
    check_same(results(task, SOURCES[source], x, y), expected)


@pytest.fixture(scope="module")
def asked_features(asked):
    """As `asked`, of features."""

    @functools.cache
    def made(name):
        task, x, y, _ = asked(name)
        x, y = features(task, x, y)
        with without_preprocessor(task):
            return x, y, results(task, dataset, x, y)

    return lambda name: (asked(name)[0], *made(name))


@contextlib.contextmanager
def without_preprocessor(task):
    preprocessor, task.preprocessor = task.preprocessor, None
    try:
        yield
    finally:
        task.preprocessor = preprocessor


def features(task, x, y):
    made = [
        task.preprocess_samples(*(rows(v, i, i + BATCH) for v in (x, y)))
        for i in range(0, ROWS, BATCH)
    ]
    made = [
        batch if isinstance(batch, tuple) else (batch, None) for batch in made
    ]
    return keras.tree.map_structure(
        lambda *v: None if v[0] is None else np.concatenate(v), *made
    )


OF_FEATURES = (
    *("lists", "generator", "PyDataset", "DataLoader"),
    *("DataLoader without length", "grain MapDataset"),
)


def quick_features(name, source):
    if ON_TORCH:
        return name == "retrieval" and source in ELSEWHERE
    return name == "text_classifier" and source == "PyDataset"


@pytest.mark.parametrize("name, source", cases(OF_FEATURES, quick_features))
def test_features(name, source, asked_features):
    """Features, with `preprocessor=None`, in all three."""
    task, x, y, expected = asked_features(name)
    with without_preprocessor(task):
        check_same(results(task, SOURCES[source], x, y), expected)


@FASTEST
def test_a_py_dataset_stays_one(asked):
    task, x, y, _ = asked("text_classifier")
    data, held_out = Batches(x, y), Batches(x, y)
    history = task.fit(data, validation_data=held_out, epochs=2, verbose=0)
    assert data.ended >= 2 and len(history.history["val_loss"]) == 2
    last = task.evaluate(x, y, batch_size=BATCH, return_dict=True, verbose=0)
    assert history.history["val_loss"][-1] == last["loss"]
    # As Keras weighs classes of a `PyDataset`.
    weights = {0: 1.0, 1: 2.0, 2: 0.5}
    assert task.fit(data, class_weight=weights, verbose=0)


@FASTEST
def test_one_error(asked):
    task, *_ = asked("text_classifier")
    row = {"image": np.zeros((8, 8, 3), "uint8"), "question": "is it red?"}
    texts = {"x": {"text": ["a"] * 2}, "y": ["cat", "dog"], "epochs": 2}
    for call, given, message in (
        (task.fit, {"x": [row] * 2, "y": ["a"]}, "`y`, .* must be None"),
        (task.predict, {"x": [row]}, "dict with the key.*Rename 'question'"),
        (task.predict, {"x": iter([]), "batch_size": 2}, "must be None"),
        (task.predict, {"x": iter([{"text": [" "]}])}, r"empty.*text\[0\]"),
        (task.fit, texts | {"validation_data": iter([])}, "`validation_steps`"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**given)
