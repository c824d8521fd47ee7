"""Mistakes that users make with data: each gets its sentence."""

import every_task
import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import slow_on
from every_task import BATCH
from every_task import TASKS
from every_task import only
from sources import Stream
from sources import generator
from sources import loader

ON_TORCH = keras.config.backend() == "torch"
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
