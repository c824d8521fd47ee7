"""Callbacks of Keras in `fit`: as without them, or as done by hand."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import slow_on
from every_task import check_same
from every_task import fit
from every_task import only
from every_task import values

ON_TORCH = keras.config.backend() == "torch"
# One whose preprocessor draws; the others differ in how they run a step.
LONG = only()
EVERYWHERE = only("retrieval" if ON_TORCH else "text_classifier")
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
def test_tensorboard(task, trained, plain, tmp_path):
    """`TensorBoard`."""
    board = C.TensorBoard(tmp_path, histogram_freq=1)
    found = fit(trained(task), task, callbacks=[board])
    check_same(found, plain(task)[:2])
    (path,) = (tmp_path / "train").glob("events*")
    events = tf.compat.v1.train.summary_iterator(str(path))
    found = [
        tf.make_ndarray(value.tensor).item()
        for event in events
        for value in event.summary.value
        if value.tag == "epoch_loss"
    ]
    np.testing.assert_allclose(found, plain(task)[0]["loss"])


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
