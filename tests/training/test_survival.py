"""Runs continue after kills, signals, full disks and damaged checkpoints."""

import resource
import shutil
import time

import forks
import keras
import launch
import numpy as np
import pytest
import resume_run
from builders import FASTEST
from builders import assert_same_weights
from builders import long_but
from builders import slow_on

from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.folders import CheckpointError
from keras_bridgetower.training.runs.places import RunFolder


def run(directory, out, moment):
    """Return the exit code of a run in a process of its own."""
    command = [resume_run.__file__, directory, out, moment]
    (code,) = launch.codes(forks.started([command], [{}]), (-9, 143))
    return code


@slow_on("tensorflow", "jax")
def test_a_run_continues_after_a_kill_and_a_sigterm(tmp_path):
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    resume_run.run(tmp_path / "whole", whole)
    assert run(tmp_path / "run", out, "save:7") == -9
    assert run(tmp_path / "run", out, "term:4") == 143
    resume_run.run(tmp_path / "run", out)
    one, other = np.load(whole), np.load(out)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


DEVICES = {
    "tensorflow": {
        "data_parallel": lambda: [{}],
        "multi_worker": launch.two_processes,
    },
    "jax": {
        "fsdp": lambda: [
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        ],
        "multi_worker": launch.two_processes,
    },
    "torch": {"data_parallel": launch.two_processes},
}[launch.BACKEND]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEVICES)
def test_runs_on_several_devices_continue(tmp_path, kind):
    """Kill in a save, then send SIGTERM to one process in an epoch."""

    def run(name, moment, allowed):
        environments = [one | {"KIND": kind} for one in DEVICES[kind]()]
        out = tmp_path / f"{name}{{}}"
        command = [resume_run.__file__, tmp_path / name, out]
        commands = [command for _ in environments]
        commands[0] = [*command, moment]
        return launch.codes(forks.started(commands, environments), allowed)

    count = len(run("whole", "never:0", [0]))
    run("part", "save:7", [-9])
    assert run("part", "term:4", [143]) == [143] * count
    run("part", "never:0", [0])
    resume_run.check_equal(tmp_path, count)


MULTI_PROCESS = list(DEVICES)[-1]
# Seconds from the death of a process to the end of the others: documented in
# the guide to devices, for PyTorch.
PROMISED = 10
# Moments of the processes, by index. A survivor that hangs gets no error from
# its framework, and one that waits for it gets none either.
LOST = {
    "two, last": ["never:0", "kill:5"],
    "three, hanging": ["never:0", "hang:5", "kill_later:5"],
}


def several_runs(folder, moments):
    """Return processes that train together, by index."""
    environments = [
        one | {"KIND": MULTI_PROCESS, "BATCH": "12"}
        for one in launch.several_processes(len(moments))
    ]
    commands = [
        [resume_run.__file__, folder / "run", folder / "out{}", moment]
        for moment in moments
    ]
    return dict(enumerate(forks.started(commands, environments)))


@pytest.mark.slow
def test_a_finished_process_is_not_lost(tmp_path):
    processes = several_runs(tmp_path, ["linger:8", "never:0"])
    assert launch.codes(processes.values()) == [0, 0]


@pytest.mark.skipif(launch.BACKEND != "torch", reason="promised for PyTorch")
@pytest.mark.parametrize("lost", long_but(LOST, "three, hanging"))
def test_survivors_of_a_killed_process_end_in_time(tmp_path, lost):
    moments = LOST[lost]
    count = len(moments)
    processes = several_runs(tmp_path, moments)
    (dead,) = (i for i, m in enumerate(moments) if m.startswith("kill"))
    try:
        processes[dead].communicate(timeout=600)
        died = time.monotonic()
        assert processes.pop(dead).returncode == -9
        for process in processes.values():
            left = max(0, died + PROMISED - time.monotonic())
            _, errors = process.communicate(timeout=left)
            assert process.returncode == 1
            assert f"ProcessError: Process {dead} of {count} has" in errors
    finally:
        for process in processes.values():
            process.kill()
    _, facts = RunFolder(tmp_path / "run").newest()
    assert facts["position"] == {"epoch": 2, "step": 0}


def fitted(directory, stream=None, **kwargs):
    stream, task = stream or resume_run.Rows(), resume_run.task()
    checkpoint = Checkpoint(directory, stream, every=2, **kwargs)
    checkpoint.fit(task, stream.steps_per_epoch, verbose=0)
    return task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run of one epoch, and its model."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, fitted(folder, keep=2)


@FASTEST
def test_the_best_checkpoint_is_kept(tmp_path):
    # NaN and infinity are never best.
    for step, score in enumerate([np.nan, 0.9, np.inf, 0.5]):
        facts = {"logs": {"score": score}}
        RunFolder(tmp_path).write(step, {"x": np.zeros(1)}, facts)
    RunFolder(tmp_path).prune(1, "score", max)
    names = [path.name for path in RunFolder(tmp_path).checkpoints()]
    assert names == ["step-000000001", "step-000000003"]


@FASTEST
def test_pruning_continues_after_a_kill(tmp_path, monkeypatch):
    for step in range(3):
        RunFolder(tmp_path).write(step, {"x": np.zeros(1)}, {"logs": {}})
    # Left by an earlier process.
    (tmp_path / "step-000000000" / folders.MANIFEST).unlink()
    removed = []

    def killed(path, **kwargs):
        if path.exists():
            removed.append(path.name)
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder(tmp_path).prune(1, "score", max)
    assert removed and removed[0].startswith(".")
    RunFolder(tmp_path).prune(1, "score", max)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"]


@slow_on("tensorflow", "jax")
def test_damaged_checkpoints_are_skipped_and_set_aside(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    # Only the newest two were kept.
    older, newer = RunFolder(tmp_path).checkpoints()
    assert (older.name, newer.name) == ("step-000000004", "step-000000006")
    content = bytearray((newer / folders.STATE).read_bytes())
    content[len(content) // 2] ^= 1
    (newer / folders.STATE).write_bytes(content)
    checkpoint = Checkpoint(tmp_path, resume_run.Rows(), every=1, keep=1)
    with pytest.warns(UserWarning, match="The checkpoint before it is tried"):
        history = checkpoint.fit(resume_run.task(), 5, verbose=0)
    assert history.epoch == [0]
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert names == ["damaged-step-000000006", "step-000000005"]
    (tmp_path / "step-000000005" / folders.MANIFEST).unlink()
    with (
        pytest.warns(UserWarning, match="is tried"),
        pytest.raises(CheckpointError, match="as it was written"),
    ):
        RunFolder(tmp_path).newest()


@slow_on("tensorflow", "jax")
def test_averages_replace_weights_at_the_end(tmp_path):
    """Check that they do so only at the end of the run."""

    def run(directory, *callbacks):
        optimizer = AdamW(1e-2, use_ema=True, ema_momentum=0.9)
        task = resume_run.task(optimizer)
        checkpoint = Checkpoint(directory, resume_run.Rows(), every=2)
        checkpoint.fit(task, 8, callbacks, verbose=0)
        return task

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", resume_run.After(7))
    goes_on = run(tmp_path / "part")
    finished = run(tmp_path / "whole")
    variables = whole.optimizer.variables
    averages = [v for v in variables if v.name.endswith("_average")]
    assert_same_weights(whole.trainable_weights, averages)
    for other in (goes_on, finished):
        assert_same_weights(whole, other)


def test_other_settings_are_rejected(finished):
    stream, task = resume_run.Rows(), resume_run.task()
    checkpoint = Checkpoint(finished[0], stream, settings={"seed": 1})
    with pytest.raises(CheckpointError, match="seed: None then, 1 now"):
        checkpoint.resume(task)
    position = checkpoint.resume(task, force=True)
    assert (position.epoch, position.step) == (1, 0)
    saved = finished[1].trainable_weights
    assert_same_weights(task.trainable_weights, saved)


def test_other_models_are_rejected(finished):
    task = resume_run.task()
    task.compile(keras.optimizers.SGD(0.1))
    checkpoint = Checkpoint(finished[0], resume_run.Rows())
    with pytest.raises(CheckpointError, match="r: 'AdamW' then, 'SGD' now"):
        checkpoint.resume(task)
    with pytest.raises(CheckpointError, match="variables that differ"):
        checkpoint.resume(task, force=True)


def test_a_full_disk_leaves_old_checkpoints(tmp_path):
    old = {"x": np.arange(10)}
    RunFolder(tmp_path).write(1, old, {})
    new = {"x": np.random.default_rng(0).random(10_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(CheckpointError, match="could not be written"):
            RunFolder(tmp_path).write(2, new, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    arrays, _ = RunFolder(tmp_path).newest()
    np.testing.assert_array_equal(arrays["x"], old["x"])


@slow_on("tensorflow", "jax")
def test_nonfinite_losses_stop(tmp_path):
    stream = resume_run.Rows()
    row = stream.rows(3)[0]
    stream.y[row] = np.nan
    message = f"loss=nan at step 3 of epoch 0.*'row {row}'"
    with pytest.raises(CheckpointError, match=message):
        fitted(tmp_path, stream)
    assert RunFolder(tmp_path).newest()[1]["position"] == {
        "epoch": 0,
        "step": 2,
    }
