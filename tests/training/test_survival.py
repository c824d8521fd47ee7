"""Runs continue after kills, signals, full disks and damaged checkpoints."""

import os
import resource
import shutil
import time

import forks
import launch
import numpy as np
import pytest
import resume_run
import s3_server
from builders import FASTEST
from builders import assert_same_weights
from builders import long_but
from builders import slow_on

from keras_bridgetower import files
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.folders import CheckpointError
from keras_bridgetower.training.runs.places import RunFolder


def started(directory, out, moments, environments=({},)):
    """Return processes of one run, each with its moment."""
    run = resume_run.__file__
    commands = [[run, directory, out, moment] for moment in moments]
    return forks.started(commands, environments)


@slow_on("tensorflow", "jax")
def test_a_run_continues_after_a_kill_and_a_sigterm(tmp_path):
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    resume_run.run(tmp_path / "whole", whole)
    for moment, code in (("save:7", -9), ("term:4", 143)):
        launch.codes(started(tmp_path / "run", out, [moment]), [code])
    resume_run.run(tmp_path / "run", out)
    one, other = np.load(whole), np.load(out)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


KINDS = {
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
    "torch": {
        "data_parallel": launch.two_processes,
        "fsdp": launch.two_processes,
    },
}[launch.BACKEND]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_killed_processes_continue_from_a_bucket(tmp_path, monkeypatch, kind):
    """Kill in an upload, then send SIGTERM to one process in an epoch."""

    def run(directory, name, moment, allowed):
        # A fork has the variables that its server began with.
        server = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        devices = KINDS.get(kind, lambda: [{}])()
        environments = [one | server | {"KIND": kind} for one in devices]
        moments = [moment, *["never:0"] * (len(environments) - 1)]
        out = tmp_path / f"{name}{{}}"
        processes = started(directory, out, moments, environments)
        return launch.codes(processes, allowed)

    with s3_server.bucket("runs", monkeypatch) as client:
        url = "s3://runs/mine"
        count = len(run(tmp_path / "run", "whole", "never:0", [0]))
        # In the upload of the second checkpoint.
        run(url, "part", f"upload:{2 if kind == 'none' else 3}", [-9])
        assert run(url, "part", "term:4", [143]) == [143] * count
        run(url, "part", "never:0", [0])
        found = client.list_objects_v2(Bucket="runs")["Contents"]
        last = "/".join(found[-1]["Key"].split("/")[:2])
        manifest = f"{last}/{folders.MANIFEST}"
        body = client.get_object(Bucket="runs", Key=manifest)["Body"]
        facts = files.parse_checksummed(body.read().decode())
    assert facts["step"] == resume_run.STEPS
    kept = {entry["Key"].split("/")[1] for entry in found}
    local = {path.name for path in RunFolder(tmp_path / "run").checkpoints()}
    assert kept == local
    resume_run.check_equal(tmp_path, count, exact=kind == "none")


KIND = "data_parallel" if launch.BACKEND == "torch" else "multi_worker"
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
    environments = [
        one | {"KIND": KIND, "BATCH": "12"}
        for one in launch.several_processes(len(moments))
    ]
    return started(folder / "run", folder / "out{}", moments, environments)


@pytest.mark.slow
def test_a_finished_process_is_not_lost(tmp_path):
    launch.codes(several_runs(tmp_path, ["linger:8", "never:0"]))


@pytest.mark.skipif(launch.BACKEND != "torch", reason="promised for PyTorch")
@pytest.mark.parametrize("lost", long_but(LOST, "three, hanging"))
def test_survivors_of_a_killed_process_end_in_time(tmp_path, lost):
    moments = LOST[lost]
    count = len(moments)
    processes = dict(enumerate(several_runs(tmp_path, moments)))
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


@slow_on("tensorflow")
def test_damaged_checkpoints_are_skipped_and_set_aside(tmp_path):
    fitted(tmp_path, keep=2)
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


@FASTEST
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
