"""What `fit`, `evaluate` and `predict` read, and mistakes with data.

All as from a `tf.data.Dataset`. Each backend has ways of its own to read what
Keras takes, so all of them run this, PyTorch with every task."""

import contextlib
import functools
import itertools

import every_task
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import slow_on
from every_task import BATCH
from every_task import TASKS
from every_task import check_same
from every_task import only
from every_task import rows
from sources import EPOCHS
from sources import ROWS
from sources import SOURCES
from sources import Batches
from sources import Stream
from sources import dataset
from sources import generator
from sources import loader

ON_TORCH = keras.config.backend() == "torch"
# What tasks without pictures do not take.
OF_PICTURES = ("PIL", "tensors")
# What JAX and TensorFlow run each time: one source of each kind.
ELSEWHERE = (
    *("columns", "generator", "PyDataset", "DataLoader"),
    "grain MapDataset",
)


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


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
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


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("name, source", cases(OF_FEATURES, quick_features))
def test_features(name, source, asked_features):
    """Features, with `preprocessor=None`, in all three."""
    task, x, y, expected = asked_features(name)
    with without_preprocessor(task):
        check_same(results(task, SOURCES[source], x, y), expected)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
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


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
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


EACH = only(*(TASKS if ON_TORCH else ("text_classifier",)))


def data(name):
    return every_task.raw(name), TASKS[name].y


def named(x, y):
    """A dataset of single samples whose pictures have one size."""
    x = every_task.as_arrays(x)
    return tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))


def missing_input(model, x, y):
    """All but the last input, from a generator."""
    *kept, _ = x
    model.fit(generator({k: x[k] for k in kept}, y))


UNBATCHED = "must hold batches: a dict of arrays"
# What is done with a model, raw inputs and labels, and what is refused.
MISTAKES = {
    "fewer labels": (lambda m, x, y: m.fit(x, y[:3]), "'y': 3"),
    "no labels": (
        lambda m, x, y: m.fit(named(x, None).batch(BATCH)),
        "`y` must hold .*y=None",
    ),
    "swapped": (lambda m, x, y: m.fit(y, x), "unless `x` is a dict of arrays"),
    "fit, not batched": (lambda m, x, y: m.fit(named(x, y)), UNBATCHED),
    "predict, not batched": (
        lambda m, x, y: m.predict(named(x, None)),
        UNBATCHED,
    ),
    "a missing input": (missing_input, "must be a dict with the key"),
    "a generator for several epochs": (
        lambda m, x, y: m.fit(generator(x, y), epochs=2),
        "`steps_per_epoch` must be set for several epochs",
    ),
}
WITH_LABELS = ("fewer labels", "no labels", "swapped")


@pytest.mark.parametrize("task", EACH)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(task, mistake, trained, refused):
    """Mistake."""
    x, y = data(task)
    model = trained(task)
    if mistake in WITH_LABELS and y is None:
        pytest.skip("the preprocessor makes the labels")
    if mistake == "no labels" and model.label_words() is None:
        pytest.skip("labels may be left out")
    call, message = MISTAKES[mistake]
    with refused(message):
        call(model, x, y)


@pytest.mark.parametrize("task", EACH)
def test_features_for_raw_inputs(task, trained, refused):
    """Features where raw inputs belong."""
    model = trained(task)
    message = "must be a dict with the keys"
    if task == "image_classifier":
        # Its input has the same name.
        message = "must be finite and on the scale from 0 to 255"
    with refused(message):
        model.predict(every_task.features(task, model))


@pytest.mark.parametrize("task", EACH)
@slow_on("jax")
def test_a_bad_value_in_a_graph(task, trained, refused):
    """A value that fails inside of `tf.data`."""
    x, y = data(task)
    model = trained(task)
    if "text" in x:
        x["text"] = ["a", "b", " ", "c"]
        message = "`text` must not be empty. Received: text.[01].="
    else:
        x["images"] = ["none.png"] * 4
        message = "`images.[01].` must be a file that exists"
    with pytest.raises(ValueError, match=message.replace("[01]", "[0-9]")):
        model.predict(named(x, None).batch(BATCH))
    with refused(message):
        model.fit(named(x, y).skip(2).batch(BATCH))


CLASSES = {
    "vqa": 4,
    "entailment": 3,
    "nlvr2": 2,
    "image_classifier": 3,
    "text_classifier": 3,
}


@pytest.mark.parametrize("task", only(*(CLASSES if ON_TORCH else EACH[-2:])))
def test_class_weight_leaves_one_out(task, trained, refused):
    """`class_weight` without one of the classes."""
    if task not in CLASSES:
        pytest.skip("this task has no classes")
    with refused(f"a weight for each of the {CLASSES[task]} classes"):
        trained(task).fit(*data(task), class_weight={0: 1.0})


@pytest.mark.skipif(not ON_TORCH, reason="the same code with every backend")
def test_class_weight_of_no_length(trained):
    task, (x, y) = trained("text_classifier"), data("text_classifier")
    weights = {0: 1.0, 1: 1.0, 2: 1.0}
    for source in (loader(x, y, Stream), generator(x, y)):
        with pytest.raises(ValueError, match="`class_weight` needs arrays"):
            task.fit(source, class_weight=weights)


@pytest.mark.skipif(not ON_TORCH, reason="the same code with every backend")
def test_pairs_that_were_turned_round(trained):
    """Two samples of two pictures: both axes have the same size."""
    x, y = data("nlvr2")
    turned = [x["images"][place][:2] for place in (0, 2)]
    turned = [tuple(pictures) for pictures in zip(*turned, strict=True)]
    batch = {"images": turned, "text": x["text"][:2]}, np.array(y[:2])
    with pytest.raises(ValueError, match="let a sample hold its pictures as"):
        trained("nlvr2").fit(iter([batch]))
    # Samples of which each is a list are understood.
    batch = {**batch[0], "images": x["images"][:2]}, batch[1]
    trained("nlvr2").fit(iter([batch]), steps_per_epoch=1, verbose=0)
