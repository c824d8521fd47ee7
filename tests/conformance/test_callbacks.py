"""Callbacks of Keras in `fit`: as without them, or as done by hand."""

import keras
import pytest
from builders import slow_on
from every_task import check_same
from every_task import fit
from every_task import only
from every_task import values

ON_TORCH = keras.config.backend() == "torch"
# One whose preprocessor draws; the others differ in how they run a step.
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
