"""Options of `compile` and `fit`, callbacks, and a user's own loops.

They give what they do without us, or by hand."""

import functools

import custom_loop
import every_task
import keras
import numpy as np
import pytest
from builders import array
from builders import difference
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


# One that draws and whose loss reads a weight, and one of the plainest.
PLAINEST = "text_classifier"
EACH = only(*(("pretraining", PLAINEST) if ON_TORCH else (PLAINEST,)))
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def asked(trained):
    """A task, three batches, and what `fit` makes of them."""

    def start(name):
        model = trained(name)
        # What is drawn depends on it; a loop of one's own counts from 0.
        model.optimizer.iterations.assign(0)
        # Three steps move the weights by more than rounding.
        model.optimizer.learning_rate.assign(0.15)
        return model

    @functools.cache
    def made(name):
        model = start(name)
        x, y = every_task.raw(name), TASKS[name].y
        places = [(0, 2), (2, 4), (1, 3)]
        batches = [(rows(x, *p), rows(y, *p)) for p in places]
        options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
        for epoch, batch in enumerate(batches):
            model.fit(*batch, epochs=epoch + 1, initial_epoch=epoch, **options)
        return batches, _weights(model)

    def get(name):
        batches, fitted = made(name)
        return start(name), batches, fitted

    return get


def _weights(model):
    return {w.path: array(w) for w in model.weights}


@pytest.mark.parametrize("task", EACH)
def test_custom_loop(task, asked):
    """A training loop of one's own"""
    model, batches, fitted = asked(task)
    start = _weights(model)
    losses = list(custom_loop.steps(model, batches))
    assert len(losses) == len(batches) and np.isfinite(losses).all()
    assert difference(fitted, start) > 1e-4
    assert difference(_weights(model), fitted) <= ROUNDING


@pytest.mark.parametrize("task", EACH)
def test_train_on_batch(task, asked):
    """`train_on_batch`, `test_on_batch`, `predict_on_batch` of raw inputs"""
    model, batches, fitted = asked(task)
    # What is drawn does not depend on draws by hand.
    model.preprocess_samples(*batches[0])
    for x, y in batches:
        model.train_on_batch(x, y)
    assert difference(_weights(model), fitted) <= ROUNDING
    # Draws are those of the first batch, as in `evaluate`.
    x, y = batches[0]
    expected = model.evaluate(x, y, BATCH, verbose=0, return_dict=True)
    model.reset_metrics()
    scores = model.test_on_batch(x, y, return_dict=True)
    assert scores == pytest.approx(expected, abs=1e-6)
    outputs = model.predict_on_batch(x)
    expected = model.predict(x, batch_size=BATCH, verbose=0)
    assert_close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    keras.tree.map_structure(assert_close, outputs, expected)
