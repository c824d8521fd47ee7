"""Options of `compile` and `fit` give what they do without us, or by hand.

Options, and callbacks of Keras.
"""

import functools

import every_task
import keras
import numpy as np
import pytest
from builders import slow_on
from every_task import BATCH
from every_task import TASKS
from every_task import as_arrays
from every_task import check_same
from every_task import everything
from every_task import fit
from every_task import given
from every_task import only
from every_task import rows
from every_task import values
from sources import Batches
from sources import dataset
from sources import generator

ON_TORCH = keras.config.backend() == "torch"
# One whose preprocessor draws; the others differ in how they run a step.
LONG = only()
EVERYWHERE = only("retrieval" if ON_TORCH else "text_classifier")


def check_close(found, expected):
    # Compiled otherwise, float32 sums are taken in another order.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    keras.tree.map_structure(close, found, expected)


@pytest.fixture(scope="module")
def fresh(trained, any_backbone):
    """As `trained`, of tasks that may be compiled otherwise."""
    made = functools.cache(lambda name: every_task.make(name, any_backbone))

    def get(name, **kwargs):
        task = every_task.compiled(made(name), **kwargs)
        task.first = trained(name).first
        return every_task.restore(task)

    return get


@pytest.mark.parametrize("task", LONG)
def test_steps_per_execution(task, fresh, plain, refused):
    """`steps_per_execution=2`."""
    if ON_TORCH:
        with refused("must be 1 with the PyTorch backend"):
            fit(fresh(task, steps_per_execution=2), task)
        return
    found = everything(fresh(task, steps_per_execution=2), task)
    check_close(found, plain(task))


OPTIONS = {
    "run_eagerly=True": {"run_eagerly": True},
    "jit_compile=False": {"jit_compile": False},
    "jit_compile=True": {"jit_compile": True},
}


# Where torch.compile parts a graph.
@pytest.mark.filterwarnings("ignore:Dynamo", "ignore:The .grad attribute")
@pytest.mark.parametrize("task", LONG)
@pytest.mark.parametrize("option", OPTIONS)
def test_option(task, option, fresh, plain):
    """Option of `compile`."""
    slow = ON_TORCH and option == "jit_compile=True"
    if slow and task != "text_classifier":
        pytest.skip("torch.compile takes minutes for each task")
    found = everything(fresh(task, **OPTIONS[option]), task)
    check_close(found, plain(task))


@pytest.mark.parametrize("task", LONG)
def test_validation_split(task, trained):
    """`validation_split`."""
    data = given(task)
    first, last = (
        {k: rows(v, *places) for k, v in data.items()}
        for places in ((0, 2), (2, 4))
    )
    found = fit(trained(task), task, **data, validation_split=0.5)
    held_out = tuple(last.values())
    expected = fit(trained(task), task, **first, validation_data=held_out)
    check_same(found, expected)


FORMS = {
    "tuple": lambda x, y: (x,) if y is None else (x, y),
    "weights": lambda x, y: (x, y, np.ones(4)),
    "tf.data": lambda x, y: dataset(as_arrays(x), y)["x"],
    "PyDataset": Batches,
    "generator": generator,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", LONG)
def test_validation_data(task, form, trained):
    """`validation_data`."""
    model, y = trained(task), TASKS[task].y
    x = every_task.raw(task)
    data = FORMS[form](x, y)
    steps = 2 if form == "generator" else None
    history, _ = fit(
        model, task, epochs=1, validation_data=data, validation_steps=steps
    )
    if form == "tf.data":
        x = as_arrays(x)
    scores = model.evaluate(x, y, BATCH, return_dict=True, verbose=0)
    assert {k: history[f"val_{k}"][-1] for k in scores} == scores


# Tasks whose labels are classes, and those of their four samples.
CLASSES = {
    "vqa": [0, 1, 2, 3],
    "entailment": [1, 2, 1, 2],
    "nlvr2": [0, 1, 1, 0],
    "image_classifier": [0, 2, 1, 0],
    "text_classifier": [0, 2, 1, 0],
}


def drawn_matches(model):
    """Labels of the two batches that follow, which the preprocessor draws."""
    x, y = every_task.raw("retrieval"), TASKS["retrieval"].y
    taken = int(model.optimizer.iterations)
    for number in range(2):
        places = number * BATCH, (number + 1) * BATCH
        batch = rows(x, *places) | {"step": taken + number}
        yield from model.preprocess_samples(batch, rows(y, *places))[1]


@pytest.mark.parametrize("task", EVERYWHERE)
@slow_on("jax")
def test_class_weight(task, trained, refused):
    """`class_weight`."""
    model = trained(task)
    if task not in (*CLASSES, "retrieval"):
        with refused("`class_weight` must have a weight for each"):
            fit(model, task, class_weight={0: 1.0, 1: 2.0})
        return
    ids = CLASSES.get(task) or list(drawn_matches(model))
    weights = {i: 1.0 + i for i in range(model.output.shape[-1])}
    found = fit(model, task, epochs=1, class_weight=weights)
    by_row = np.array([weights[int(i)] for i in ids])
    expected = fit(trained(task), task, epochs=1, sample_weight=by_row)
    check_same(found, expected)


C = keras.callbacks


class Worse(C.Callback):
    """Gives each epoch a value that only gets worse, and never better."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worse"] = float(epoch)


@pytest.mark.parametrize("task", EVERYWHERE)
@slow_on("jax")
def test_early_stopping(task, trained):
    """`EarlyStopping(restore_best_weights=True)`."""
    model = trained(task)
    _, best = fit(model, task, epochs=1)
    weights = len(model.weights)
    stop = C.EarlyStopping("worse", 0, 1, 0, "min", restore_best_weights=True)
    calls = [Worse(), stop]
    history, found = fit(trained(task), task, epochs=4, callbacks=calls)
    assert len(history["loss"]) == 2
    check_same(found[:weights], best[:weights])


@pytest.mark.parametrize("task", EVERYWHERE)
def test_checkpoint_of_models(task, trained, tmp_path):
    """`ModelCheckpoint` of the whole model."""
    save = C.ModelCheckpoint(
        tmp_path / "a.keras", "worse", save_best_only=True, mode="min"
    )
    _, best = fit(trained(task), task, epochs=1)
    fit(trained(task), task, callbacks=[Worse(), save])
    check_same(values(keras.saving.load_model(tmp_path / "a.keras")), best)


@pytest.mark.parametrize("task", EVERYWHERE)
@slow_on("tensorflow", "jax")
def test_backup(task, trained, plain, tmp_path):
    """`BackupAndRestore`, after a stop."""

    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    calls = [C.BackupAndRestore(tmp_path), C.LambdaCallback(stop)]
    with pytest.raises(KeyboardInterrupt):
        fit(trained(task), task, callbacks=calls)
    _, found = fit(trained(task), task, callbacks=calls[:1])
    check_same(found, plain(task)[1])
