"""Functional models over the graph of a task, such as users make them."""

import every_task
import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import difference
from builders import moved
from builders import one_layer_each
from builders import randomise
from builders import run
from builders import some_everywhere

import keras_bridgetower as kbt

PROJECTION_DIM = 8


def contrastive(towers, **values):
    return kbt.BridgeTowerContrastive(
        towers, projection_dim=PROJECTION_DIM, **values
    )


def pretraining(towers):
    values = dict(negatives="hard_negatives")
    preprocessor = every_task.preprocessor("pretraining", **values)
    values |= dict(projection_dim=PROJECTION_DIM, ways="three_way")
    return kbt.BridgeTowerPretraining(towers, preprocessor, **values)


def as_elsewhere(name):
    """The task that other tests make, from a backbone."""
    return lambda towers: every_task.make(name, towers)


# Callables from a backbone to a task; all tasks, and what their values change.
MAKE = {name: as_elsewhere(name) for name in every_task.TASKS} | {
    "contrastive, two-way": lambda towers: contrastive(towers, ways="two_way"),
    "pretraining, hard negatives": pretraining,
}


@pytest.fixture(scope="module")
def towers():
    """The backbone of all tasks; each test sets its weights anew."""
    return backbone(**one_layer_each())


def features_of(name, task):
    """Features for a call, drawn where the task draws."""
    kind = name.partition(",")[0]
    preprocessor = task.preprocessor or every_task.preprocessor(kind)
    made = preprocessor(every_task.raw(kind))
    made = made[0] if isinstance(made, tuple) else made
    x = {key: array(made[key]) for key in task.input}
    if "negative_places" in x:
        # Without a label each sample would be drawn as its own negative.
        places = np.random.default_rng(0).random(x["negative_places"].shape)
        x["negative_places"] = places.astype("float32")
        x["image_id"] = every_task.IDS.astype("int32")
    return x


def differences(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return max(difference(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", some_everywhere(MAKE, "contrastive"))
def test_a_graph_reads_the_weights_of_now(name, towers):
    task = MAKE[name](towers)
    x = features_of(name, task)
    model = keras.Model(task.input, task.output)
    assert [w.path for w in model.weights] == [
        w.path for w in task.weights[: len(model.weights)]
    ]
    first = run(randomise(task, seed=1), x)
    second = run(randomise(task, scale=0.4, seed=2), x)
    # In all outputs the weights tell.
    for a, b in zip(
        keras.tree.flatten(first), keras.tree.flatten(second), strict=True
    ):
        assert difference(a, b) > 1e-2
    assert differences(run(model, x), second) <= 1e-5


@LONG_ELSEWHERE
def test_one_output_trains_the_type_embedding():
    task = randomise(contrastive(backbone(**one_layer_each())))
    types = task.backbone.fusion.type_embedding
    for weight in task.weights:
        weight.trainable = weight is types
    model = keras.Model(task.input, task.output["image"])
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    x = features_of("contrastive", task)
    target = np.ones((len(x["images"]), PROJECTION_DIM), "float32")
    changed = moved(task, lambda: model.train_on_batch(x, target))
    assert changed == {"fusion/type_embedding"}


@LONG_ELSEWHERE
def test_a_graph_that_shares_weights_is_not_copied(towers):
    task = contrastive(towers)
    model = keras.Model(task.input, task.output)
    with pytest.raises(
        NotImplementedError, match="task.*fusion/type_embedding"
    ):
        model.get_config()
