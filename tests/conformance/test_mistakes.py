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
from sources import Batches
from sources import Stream
from sources import generator
from sources import loader

ON_TORCH = keras.config.backend() == "torch"
EACH = only(*(TASKS if ON_TORCH else ("text_classifier",)))
METHODS = ("fit", "evaluate", "predict")


def data(name):
    return every_task.raw(name), TASKS[name].y


def labelled(name):
    if TASKS[name].y is None:
        pytest.skip("the preprocessor makes the labels")
    return data(name)


def named(x, y):
    """A dataset of single samples whose pictures have one size."""
    x = every_task.as_arrays(x)
    return tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))


@pytest.mark.parametrize("task", EACH)
def test_no_labels(task, trained, refused):
    """No labels."""
    x, _ = labelled(task)
    model = trained(task)
    if model.label_words() is None:
        pytest.skip("labels may be left out")
    for method in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match="`y` must hold.*y=None"):
            method(x)
    with refused("`y` must hold .*y=None"):
        model.fit(named(x, None).batch(BATCH))


@pytest.mark.parametrize("task", EACH)
def test_fewer_labels(task, trained, refused):
    """Fewer labels than samples."""
    x, y = labelled(task)
    with refused("one row for each sample.*'y': 3"):
        trained(task).fit(x, y[:3])


@pytest.mark.parametrize("task", EACH)
@pytest.mark.parametrize("method", METHODS)
def test_unbatched(task, method, trained, refused):
    """A dataset that is not batched."""
    with refused("Received: "):
        getattr(trained(task), method)(named(*data(task)))


@pytest.mark.parametrize("task", EACH)
def test_swapped(task, trained, refused):
    """`x` and `y` swapped."""
    x, y = labelled(task)
    with refused("must be None unless `x` is a dict of arrays"):
        trained(task).fit(y, x)


@pytest.mark.parametrize("task", EACH)
@pytest.mark.parametrize("source", ["dict", "tf.data", "generator"])
def test_missing_input(task, source, trained, refused):
    """An input that is missing."""
    x, y = data(task)
    *kept, missing = x
    x = {k: v for k, v in x.items() if k != missing} | {"other": x[missing]}
    if source == "tf.data":
        x = named({"other": np.zeros(4), **{k: x[k] for k in kept}}, y)
        given = {"x": x.batch(BATCH)}
    elif source == "generator":
        given = {"x": generator(x, y)}
    else:
        x["other"] = [1, 2, 3, 4]
        given = {"x": x} if y is None else {"x": x, "y": y}
    with refused(f"must be a dict with the keys? .*{missing!r}.*Received"):
        trained(task).fit(**given)


@pytest.mark.parametrize("task", EACH)
def test_features_for_raw_inputs(task, trained, refused):
    """Features where raw inputs belong."""
    model = trained(task)
    x = every_task.features(task, model)
    message = "Features that a preprocessor made are for"
    if task == "image_classifier":
        # Its input has the same name.
        message = "must hold finite values from 0 to 255"
    with refused(message):
        model.predict(x)


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
        message = "`images.[01].` must be a readable image file"
    for call in (
        lambda: model.predict(named(x, None).batch(BATCH)),
        lambda: model.fit(*data(task), validation_data=named(x, y).batch(2)),
    ):
        with pytest.raises(ValueError, match=message.replace("[01]", "[0-9]")):
            call()
    with refused(message):
        model.fit(named(x, y).skip(2).batch(BATCH))


@pytest.mark.parametrize("task", EACH)
def test_several_epochs_of_a_generator(task, trained, refused):
    """A generator for several epochs, without `steps_per_epoch`."""
    x, y = data(task)
    once = generator(x, y)
    with pytest.raises(ValueError, match="`validation_steps` must be set"):
        trained(task).fit(Batches(x, y), validation_data=once, epochs=2)
    with refused("`steps_per_epoch` must be set for several epochs"):
        trained(task).fit(once, epochs=2)


@pytest.mark.parametrize("task", only(*(("vqa",) if ON_TORCH else ())))
def test_never_compiled(task, any_backbone, refused):
    """`fit` without `compile`."""
    model = every_task.make(task, any_backbone, compile=False)
    with refused("You must call `compile"):
        model.fit(*data(task))


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
