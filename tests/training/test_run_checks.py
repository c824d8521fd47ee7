"""Runs that are rejected, stopped, or warn of a failure."""

import contextlib
import pathlib
import shutil
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import resume_run
import streams
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import SIDE
from builders import array

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.runs import checks
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.folders import CheckpointError
from keras_bridgetower.training.runs.places import RunFolder

pytestmark = LONG_ELSEWHERE


@FASTEST
def test_monitors_must_be_logged(tmp_path):
    stream, task = resume_run.Rows(2), resume_run.task()
    checkpoint = Checkpoint(tmp_path, stream, monitor="val_scor")
    with pytest.raises(CheckpointError, match="'loss'.*monitor='val_scor'"):
        checkpoint.fit(task, 4, verbose=0)
    # The epoch is not lost.
    (saved,) = RunFolder(tmp_path).checkpoints()
    assert saved.name == "step-000000002"
    # Every second epoch is evaluated, and the first is not.
    checkpoint = Checkpoint(tmp_path / "freq", stream, monitor="val_loss")
    evaluated = {"validation_data": stream.batch(0), "validation_freq": 2}
    checkpoint.fit(resume_run.compiled(task), 4, verbose=0, **evaluated)
    _, facts = RunFolder(tmp_path / "freq").newest()
    assert "val_loss" in facts["logs"]


@FASTEST
def test_arguments_of_fit_are_rejected(tmp_path):
    task = resume_run.task()
    checkpoint = Checkpoint(tmp_path, resume_run.Rows())
    for name in ("epochs", "steps_per_epoch"):
        with pytest.raises(ValueError, match=f"`{name}` must be left out"):
            checkpoint.fit(task, 6, **{name: 1})
    for callback in (
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.BackupAndRestore("backup"),
        keras.callbacks.EarlyStopping(restore_best_weights=True),
    ):
        name = type(callback).__name__
        with pytest.raises(ValueError, match=f"`callbacks` must.*`{name}`"):
            checkpoint.fit(task, 6, callbacks=[callback])
    # As `compile` sets it on other backends than PyTorch.
    task.steps_per_execution = 2
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
        checkpoint.fit(task, 6)


@FASTEST
def test_force_hosts_allows_other_hosts_only(tmp_path):
    rows = [streams.record("vqa", i) for i in range(8)]
    reader = streams.write(tmp_path / "rows", rows)

    def origin(hosts, seed=0):
        values = {"num_hosts": hosts, "seed": seed}
        stream = Stream(reader, 4, transform("blip", SIDE), **values)
        return checks.origin({}, stream)

    for force, then, now, differs in (
        ("hosts", origin(1), origin(2), None),
        (True, origin(1), origin(2, seed=1), None),
        (False, origin(1), origin(2), "stream.num_hosts: 1 then, 2 now"),
        ("hosts", origin(1), origin(2, seed=1), "stream.seed: 0 then, 1 now"),
    ):
        expected = contextlib.nullcontext()
        if differs:
            expected = pytest.raises(CheckpointError, match=f"\n{differs}$")
        with expected:
            checks.check_origin(tmp_path, then, now, force)
    with pytest.raises(ValueError, match="`force` must be one of"):
        Checkpoint(tmp_path, resume_run.Rows()).resume(None, force="host")


@FASTEST
def test_unwritable_folders_are_rejected_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    task, steps = resume_run.task(), []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: steps.append(step)
    )
    for place in (tmp_path / "file" / "run", pathlib.Path("/proc/run")):
        checkpoint = Checkpoint(place, resume_run.Rows())
        with pytest.raises(CheckpointError, match="must be writable"):
            checkpoint.fit(task, 6, [count], verbose=0)
    assert steps == []


def test_identity_of_streams(tmp_path):
    rows = [streams.record("vqa", i) for i in range(4)]
    reader = streams.write(tmp_path / "one", rows)
    moved = streams.write(tmp_path / "moved", rows)
    other = streams.write(
        tmp_path / "other", rows[:3] + [streams.record("vqa", 4)]
    )

    def origin(reader=reader, name="blip_randaug_wohf", batch_size=2, **kwargs):
        stream = Stream(reader, batch_size, transform(name, SIDE), **kwargs)
        return checks.origin({"rates": (1, 2)}, stream)

    then = origin()
    assert then == origin(moved)
    # No memory address, which differs between processes.
    assert "0x" not in str(then)
    changes = {
        "batch_size": origin(batch_size=3),
        "seed": origin(seed=1),
        "remainder": origin(remainder="drop"),
        "order": origin(order=Sequential()),
        "weights": origin(weights=[2]),
        "transform": origin(name="blip"),
        "target": origin(target="class_id"),
        "source 0": origin(other),
        "source 1": origin([reader, moved]),
    }
    for name, now in changes.items():
        lines = checks.differences(then, now)
        assert any(line.startswith(f"stream.{name}: ") for line in lines), name


class Broken(keras.losses.Loss):
    """A finite loss whose gradients are not."""

    def call(self, y_true, y_pred):
        return keras.ops.sqrt(keras.ops.sum(y_pred * 0.0, axis=-1))


def warnings_of(run):
    """Return the warnings of a run about values that are not finite."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run()
    texts = [str(w.message) for w in warned]
    return [text for text in texts if "must be finite" in text]


def scaled(scale):
    return keras.optimizers.LossScaleOptimizer(AdamW(1e-2), scale)


def test_nonfinite_gradients_stop(tmp_path):
    # With a scale of 2, the second step shows that no scale helps.
    task = resume_run.task(scaled(2.0), loss=Broken())
    checkpoint = Checkpoint(tmp_path, resume_run.Rows())
    message = "loss=0.0 at step 1 of.*the gradients are not finite"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.fit(task, 6, verbose=0)


def with_nan():
    stream = resume_run.Rows()
    stream.y[stream.rows(3)[0]] = np.nan
    return stream


def test_a_restart_reports_no_old_failure(tmp_path):
    def fit(name, policy, *callbacks):
        run = Checkpoint(tmp_path / name, with_nan(), 1, on_nonfinite=policy)
        task = resume_run.task()
        found = warnings_of(lambda: run.fit(task, 6, callbacks, verbose=0))
        assert run.position.epoch == 1
        return found

    with pytest.raises(KeyboardInterrupt):
        fit("a", "skip", resume_run.After(5))
    for policy in ("skip", "stop"):
        shutil.copytree(tmp_path / "a", tmp_path / policy)
        assert fit(policy, policy) == []


def test_loss_scaling(tmp_path):
    """Accept overflow, and warn once of a loss that is not finite."""
    task = resume_run.task(scaled(2.0**127))
    run = Checkpoint(tmp_path / "a", resume_run.Rows())
    assert warnings_of(lambda: run.fit(task, 8, verbose=0)) == []
    assert array(task.optimizer.dynamic_scale) < 2.0**127
    assert 0 < int(array(task.optimizer.iterations)) < 8
    task = resume_run.task(scaled(8.0))
    run = Checkpoint(tmp_path / "b", with_nan(), on_nonfinite="skip")
    (message,) = warnings_of(lambda: run.fit(task, 4, verbose=0))
    assert "step 3 of epoch 0" in message
    assert message.endswith("the loss is not finite")
    assert int(array(task.optimizer.iterations)) == 3


@FASTEST
def test_stop_training_by_another_callback(tmp_path):
    task = resume_run.task(keras.optimizers.SGD(0.1))

    def fit(callback):
        checkpoint = Checkpoint(tmp_path, resume_run.Rows(2), every=2)
        checkpoint.fit(task, 9, [callback], verbose=0)
        return checkpoint.position

    def stop(*_):
        task.stop_training = True

    # In the middle of an epoch, and at its end after the run continued.
    assert fit(resume_run.After(3, stop)) == checks.Position(1, 1)
    call = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    assert fit(call) == checks.Position(2, 0)


@FASTEST
def test_the_sigterm_handler_is_restored(tmp_path):
    before, task = signal.getsignal(signal.SIGTERM), resume_run.task()
    for end, error in (
        (resume_run.interrupt, KeyboardInterrupt),
        (resume_run.terminate, SystemExit),
    ):
        call = resume_run.After(1, end)
        checkpoint = Checkpoint(tmp_path / error.__name__, resume_run.Rows())
        with pytest.raises(error) as ended:
            checkpoint.fit(task, 6, [call], verbose=0)
        assert signal.getsignal(signal.SIGTERM) is before
    assert ended.value.code == 143
    # Elsewhere than in the main thread there is none.
    run = Checkpoint(tmp_path / "thread", resume_run.Rows())
    with ThreadPoolExecutor() as pool:
        fit = pool.submit(run.fit, task, 4, verbose=0)
        with pytest.warns(UserWarning, match="ends the process without saving"):
            fit.result()
