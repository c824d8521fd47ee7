"""What `compile` and `fit` take: as without it, or as done by hand."""

import csv

import every_task
import keras
import numpy as np
import pytest
import tensorflow as tf
from every_task import BATCH
from every_task import TASKS
from every_task import check_same
from every_task import only
from every_task import rows
from every_task import values
from sources import Batches
from sources import generator
from sources import loader

from keras_bridgetower.tasks import training_data

ON_TORCH = keras.config.backend() == "torch"
# One whose preprocessor draws; the others differ in how they run a step.
LONG = only()
EVERYWHERE = only("retrieval" if ON_TORCH else "text_classifier")
C = keras.callbacks


def given(name):
    """Arguments of `fit` without any option."""
    x, y = every_task.raw(name), TASKS[name].y
    return {"x": x} | ({} if y is None else {"y": y})


def fit(task, name, epochs=2, **kwargs):
    """History, and what weights and slots are in the end."""
    kwargs = {"batch_size": BATCH, "verbose": 0} | given(name) | kwargs
    history = task.fit(epochs=epochs, **kwargs).history
    return history, values(task)


def everything(task, name):
    history, trained = fit(task, name)
    x = given(name)
    scores = task.evaluate(**x, batch_size=BATCH, return_dict=True, verbose=0)
    outputs = task.predict(x["x"], batch_size=BATCH, verbose=0)
    return history, trained, scores, outputs


def check_close(found, expected):
    # Compiled otherwise, float32 sums are taken in another order.
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


@pytest.fixture(scope="module")
def fresh(trained):
    """As `trained`, of tasks that may be compiled otherwise."""
    made = {}

    def get(name, **kwargs):
        if name not in made:
            made[name] = every_task.build(name)
            made[name].first = trained(name).first
        task = every_task.compiled(made[name], **kwargs)
        return every_task.restore(task)

    return get


@pytest.mark.parametrize("task", LONG)
def test_steps_per_execution(task, fresh, trained, refused):
    """`steps_per_execution=2`."""
    if ON_TORCH:
        with refused("must be 1 with the PyTorch backend"):
            fit(fresh(task, steps_per_execution=2), task)
        return
    found = everything(fresh(task, steps_per_execution=2), task)
    check_close(found, everything(trained(task), task))


@pytest.mark.parametrize("task", LONG)
def test_run_eagerly(task, fresh, trained):
    """`run_eagerly=True`."""
    found = everything(fresh(task, run_eagerly=True), task)
    check_close(found, everything(trained(task), task))


@pytest.mark.parametrize("task", LONG)
@pytest.mark.parametrize("jit", ["auto", "False", "True"])
def test_jit_compile(task, jit, fresh, trained):
    """`jit_compile`."""
    if ON_TORCH and jit == "True":
        pytest.skip("torch.compile takes minutes for each task")
    jit = {"False": False, "True": True}.get(jit, jit)
    found = everything(fresh(task, jit_compile=jit), task)
    check_close(found, everything(trained(task), task))


class Worse(C.Callback):
    """Gives each epoch a value that only gets worse, and never better."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worse"] = float(epoch)


@pytest.mark.parametrize("task", EVERYWHERE)
def test_early_stopping(task, trained):
    """`EarlyStopping(restore_best_weights=True)`."""
    model = trained(task)
    _, best = fit(model, task, epochs=1)
    weights = len(model.weights)
    stop = C.EarlyStopping("worse", 0, 1, 0, "min", restore_best_weights=True)
    history, found = fit(
        trained(task), task, epochs=4, callbacks=[Worse(), stop]
    )
    assert len(history["loss"]) == 2
    check_same(found[:weights], best[:weights])


@pytest.mark.parametrize("task", LONG)
def test_checkpoint_of_weights(task, trained, tmp_path):
    """`ModelCheckpoint` of weights."""
    path = tmp_path / "a.weights.h5"
    save = C.ModelCheckpoint(path, save_weights_only=True)
    _, last = fit(trained(task), task, callbacks=[save])
    model = trained(task)
    model.load_weights(path)
    check_same(values(model), last)


@pytest.mark.parametrize("task", EVERYWHERE)
def test_checkpoint_of_models(task, trained, tmp_path):
    """`ModelCheckpoint` of the whole model."""
    save = C.ModelCheckpoint(
        tmp_path / "a.keras", "worse", save_best_only=True, mode="min"
    )
    _, best = fit(trained(task), task, epochs=1)
    fit(trained(task), task, callbacks=[Worse(), save])
    check_same(values(keras.saving.load_model(tmp_path / "a.keras")), best)


@pytest.mark.parametrize("task", LONG)
def test_reduced_rate(task, trained):
    """`ReduceLROnPlateau`."""
    reduce = C.ReduceLROnPlateau("worse", 0.5, 1, mode="min")
    _, found = fit(trained(task), task, epochs=3, callbacks=[Worse(), reduce])
    # The rate is reduced at the end of the second epoch, and of the third.
    by_hand = C.LearningRateScheduler(lambda epoch: [1e-2, 1e-2, 5e-3][epoch])
    _, expected = fit(trained(task), task, epochs=3, callbacks=[by_hand])
    weights = len(trained(task).weights)
    check_same(found[:weights], expected[:weights])
    assert float(np.min(found[weights + 1])) == pytest.approx(2.5e-3)


@pytest.mark.parametrize("task", LONG)
def test_csv_logger(task, trained, tmp_path):
    """`CSVLogger`."""
    log = C.CSVLogger(tmp_path / "log.csv")
    history, _ = fit(trained(task), task, callbacks=[log])
    with open(tmp_path / "log.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["loss"]) for line in lines] == history["loss"]


@pytest.mark.parametrize("task", LONG)
def test_tensorboard(task, trained, tmp_path):
    """`TensorBoard`."""
    board = C.TensorBoard(tmp_path, histogram_freq=1)
    found = fit(trained(task), task, callbacks=[board])
    check_same(found, fit(trained(task), task))
    (path,) = (tmp_path / "train").glob("events*")
    events = tf.compat.v1.train.summary_iterator(str(path))
    found = [
        tf.make_ndarray(value.tensor).item()
        for event in events
        for value in event.summary.value
        if value.tag == "epoch_loss"
    ]
    np.testing.assert_allclose(found, fit(trained(task), task)[0]["loss"])


@pytest.mark.parametrize("task", LONG)
def test_terminate_on_nan(task, trained):
    """`TerminateOnNaN`."""
    model = trained(task)
    weight = model.trainable_weights[0]
    weight.assign(np.full(weight.shape, np.nan))
    history, _ = fit(model, task, callbacks=[C.TerminateOnNaN()])
    assert len(history["loss"]) == 1


@pytest.mark.parametrize("task", LONG)
def test_lambda_callback(task, trained):
    """`LambdaCallback`."""
    seen = []
    call = C.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_epoch_end=lambda epoch, logs: seen.append(logs["loss"]),
    )
    history, _ = fit(trained(task), task, callbacks=call)
    first, second = history["loss"]
    assert seen == [0, 1, first, 0, 1, second]


@pytest.mark.parametrize("task", EVERYWHERE)
def test_backup(task, trained, tmp_path):
    """`BackupAndRestore`, after a stop."""

    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    calls = [C.BackupAndRestore(tmp_path), C.LambdaCallback(stop)]
    with pytest.raises(KeyboardInterrupt):
        fit(trained(task), task, callbacks=calls)
    _, found = fit(trained(task), task, callbacks=calls[:1])
    check_same(found, fit(trained(task), task)[1])


@pytest.mark.parametrize("form", ["lists", "arrays"])
@pytest.mark.parametrize("task", LONG)
def test_validation_split(task, form, trained):
    """`validation_split`."""
    data = given(task)
    if form == "arrays":
        data = as_arrays(data)
    first, last = (
        {k: rows(v, *places) for k, v in data.items()}
        for places in ((0, 2), (2, 4))
    )
    found = fit(trained(task), task, **data, validation_split=0.5)
    held_out = tuple(last.values())
    expected = fit(trained(task), task, **first, validation_data=held_out)
    check_same(found, expected)


def as_arrays(data):
    """Pictures of one size and texts as arrays."""
    x = {k: np.array(v) for k, v in data["x"].items() if k == "text"}
    if "images" in data["x"]:
        x["images"] = np.array(
            keras.tree.map_structure(lambda im: im[:40], data["x"]["images"])
        )
    return {**data, "x": x}


FORMS = {
    "tuple": lambda x, y: (x,) if y is None else (x, y),
    "list": lambda x, y: [x] if y is None else [x, y],
    "weights": lambda x, y: (x, y, np.ones(4)),
    "tf.data": lambda x, y: batched(x, y),
    "PyDataset": Batches,
    "generator": generator,
    "DataLoader": loader,
}


def batched(x, y):
    data = as_arrays({"x": x})["x"]
    data = data if y is None else (data, y)
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH)


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
        x = as_arrays({"x": x})["x"]
    scores = model.evaluate(x, y, BATCH, return_dict=True, verbose=0)
    assert {k: history[f"val_{k}"][-1] for k in scores} == scores


# Tasks whose labels are classes, and those of their four samples.
CLASSES = {
    "vqa": [0, 1, 2, 3],
    "entailment": [1, 0, 1, 0],
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
def test_class_weight(task, trained, refused):
    """`class_weight`."""
    model = trained(task)
    if task not in (*CLASSES, "retrieval"):
        with refused("labels that are classes, which this task has not"):
            fit(model, task, class_weight={0: 1.0, 1: 2.0})
        return
    ids = CLASSES.get(task) or list(drawn_matches(model))
    weights = {i: 1.0 + i for i in range(model.output.shape[-1])}
    found = fit(model, task, epochs=1, class_weight=weights)
    by_row = np.array([weights[int(i)] for i in ids])
    expected = fit(trained(task), task, epochs=1, sample_weight=by_row)
    check_same(found, expected)


@pytest.mark.parametrize("task", EVERYWHERE)
def test_shuffle(task, trained, monkeypatch):
    """`shuffle=True`."""
    orders = []

    class Spied(training_data.Shuffled):
        def __call__(self):
            orders.append(super().__call__())
            return orders[-1]

    monkeypatch.setattr(training_data, "Shuffled", Spied)
    found = fit(trained(task), task, epochs=1, shuffle=True)
    order = orders[-1]
    assert sorted(order) == [0, 1, 2, 3]
    data = given(task)
    moved = keras.tree.map_structure_up_to(
        {"x": dict.fromkeys(data["x"], 0)} | ({"y": 0} if "y" in data else {}),
        lambda values: [values[i] for i in order],
        data,
    )
    check_same(found, fit(trained(task), task, epochs=1, **moved))
