"""Runs whose checkpoints are in an object store: parts and failures."""

import threading
import time
import traceback
import warnings

import keras
import numpy as np
import pytest
import resume_run
from builders import FASTEST
from builders import array
from builders import assert_same_weights

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.folders import CheckpointError
from keras_bridgetower.training.runs.places import RunFolder
from keras_bridgetower.training.runs.places import RunStore

pytestmark = FASTEST
URL, ROOT = "memory://bucket/run", "/bucket/run/"


def fitted(directory, steps, *callbacks, keep=3):
    task = resume_run.task()
    checkpoint = Checkpoint(directory, resume_run.Rows(), 2, keep)
    checkpoint.fit(task, steps, callbacks, verbose=0)
    return [array(v) for v in (*task.variables, *task.optimizer.variables)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run in one go, and its values by step."""
    folder, states = tmp_path_factory.mktemp("whole"), {}
    task = resume_run.task()

    def note(batch, logs):
        variables = (*task.variables, *task.optimizer.variables)
        states[len(states) + 1] = [np.array(array(v)) for v in variables]

    noted = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    checkpoint = Checkpoint(folder, resume_run.Rows(), 2)
    checkpoint.fit(task, 8, [noted], verbose=0)
    return folder, states


def names(store):
    return sorted(path.removeprefix(ROOT) for path in store.find(ROOT))


def files_of(*steps):
    """Return the names of the files of complete checkpoints."""
    return sorted(
        f"step-{step:09d}/{file}"
        for step in steps
        for file in (folders.MANIFEST, folders.STATE)
    )


def test_a_run_continues_on_another_machine(store, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        fitted(URL, 8, resume_run.After(5))
    assert names(store) == files_of(2, 4)
    # A part that a killed process left is no checkpoint, and is removed.
    store.pipe_file(f"{ROOT}step-000000006/{folders.STATE}", b"0")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "A checkpoint must be as")
        assert_same_weights(fitted(URL, 8), whole[1][8])
    assert names(store) == files_of(4, 6, 8)
    # Copied to a folder, it is the run of that folder.
    copy = tmp_path / "copy"
    store.get(ROOT, str(copy), recursive=True)
    found, wanted = (RunFolder(place).newest() for place in (copy, whole[0]))
    assert found[1] == wanted[1]
    assert_same_weights(found[0].values(), wanted[0].values())


def test_a_damaged_checkpoint_is_not_used(store, whole):
    fitted(URL, 4)
    store.pipe_file(f"{ROOT}step-000000004/{folders.STATE}", b"0")
    left = store.cat_file(f"{ROOT}step-000000002/{folders.STATE}")
    with pytest.warns(UserWarning, match=f"'{URL}/step-0*4' .* is tried"):
        assert_same_weights(fitted(URL, 5), whole[1][5])
    assert names(store) == files_of(2, 4, 5)
    assert left == store.cat_file(f"{ROOT}step-000000002/{folders.STATE}")


def test_a_damaged_checkpoint_is_set_aside(store):
    fitted(URL, 4)
    store.rm(f"{ROOT}step-000000004/{folders.STATE}")
    store.pipe_file(f"{ROOT}step-000000004/{folders.MANIFEST}", b"0")
    stream = resume_run.Rows()
    with pytest.warns(UserWarning, match="is tried"):
        Checkpoint(URL, stream, every=1, keep=1).fit(
            resume_run.task(), 3, verbose=0
        )
    aside = f"damaged-step-000000004/{folders.MANIFEST}"
    assert names(store) == [aside, *files_of(3)]


def test_a_failed_upload_leaves_old_checkpoints(store, monkeypatch, whole):
    def fail(self, path, *args, **kwargs):
        raise ConnectionResetError("reset by peer")

    with pytest.raises(KeyboardInterrupt):
        fitted(URL, 8, resume_run.After(4))
    with monkeypatch.context() as patched:
        patched.setattr(object_stores, "SECONDS", 0.5)
        patched.setattr(type(store), "put_file", fail)
        with pytest.raises(
            CheckpointError, match=f"step 6 could .*'{URL}' .*reset by peer"
        ):
            fitted(URL, 8)
        patched.undo()
        patched.setattr(object_stores, "SECONDS", 0.5)
        # What cannot be fetched is no damage: no older one is taken.
        patched.setattr(type(store), "get_file", fail)
        with pytest.raises(CheckpointError, match=f"fetched.*'{URL}' .*reset"):
            fitted(URL, 8)
    assert_same_weights(fitted(URL, 8), whole[1][8])


def test_the_newest_and_the_best_are_kept(store):
    stream, task = resume_run.Rows(), resume_run.task()
    checkpoint = Checkpoint(URL, stream, 2, keep=1, monitor="loss", mode="max")
    # The loss is that of each epoch of six updates; the first is the largest.
    history = checkpoint.fit(task, 14, verbose=0).history["loss"]
    best = 6 * (1 + int(np.argmax(history[:2])))
    assert names(store) == files_of(*{best, 14})


def test_training_goes_on_beside_an_upload(store, tmp_path, monkeypatch):
    """An upload has the state of its step, and the next save waits for it."""
    upload, later, went_on = type(store).put_file, threading.Event(), []

    def waits(*told, **more):
        went_on.append(later.wait(20))
        upload(*told, **more)

    monkeypatch.setattr(type(store), "put_file", waits)
    whole = fitted(tmp_path / "whole", 6)
    assert_same_weights(fitted(URL, 6, resume_run.After(3, later.set)), whole)
    assert went_on == [True] * 3
    for step in (2, 4, 6):
        name = f"step-{step:09d}/{folders.STATE}"
        local = (tmp_path / "whole" / name).read_bytes()
        assert store.cat_file(ROOT + name) == local


def test_processes_of_a_machine_fetch_a_checkpoint_once(store, monkeypatch):
    fitted(URL, 4)
    fetch, fetched, read = type(store).get_file, [], []
    # The threads of a process share the position in a file of memory.
    alone = threading.Lock()

    def counted(store, path, *told, **more):
        fetched.append(path.rpartition("/")[2])
        with alone:
            fetch(store, path, *told, **more)

    monkeypatch.setattr(type(store), "get_file", counted)
    places = [RunStore(URL) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda p=p: read.append(p.newest()))
        for p in places
    ]
    for act in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            act(thread)
    assert {facts["step"] for _, facts in read} == {4} and len(read) == 3
    assert fetched.count(folders.STATE) == 1
    for place in places:
        place.forget_copies()
    kept = files.keras_home() / "keras_bridgetower_checkpoints"
    assert [path.name for path in kept.iterdir()] == ["fetching.lock"]


def test_another_run_in_the_store_ends_this_one(store):
    def write_another():
        # The checkpoint before is written beside training.
        while names(store) != files_of(2):
            time.sleep(0.01)
        other = f"{ROOT}step-000000009/{folders.MANIFEST}"
        store.pipe_file(other, b"{}")

    with pytest.raises(CheckpointError, match="one run at a time.*0009"):
        fitted(URL, 8, resume_run.After(3, write_another))
    assert names(store) == [*files_of(2), "step-000000009/manifest.json"]


def test_secrets_are_rejected_or_hidden(store, monkeypatch):
    with pytest.raises(ValueError, match="no password") as raised:
        Checkpoint("ftp://me:secret@host/run", resume_run.Rows())
    assert "secret" not in str(raised.value)
    monkeypatch.setattr(object_stores, "SECONDS", 0.2, raising=False)

    def refuse(self, path, *args):
        raise PermissionError(f"memory:/{path}?X-Signature=abcd")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    url = "memory://me@bucket/run"
    with pytest.raises(CheckpointError, match="'memory://bucket/run'") as told:
        fitted(url, 2)
    lines = "".join(traceback.format_exception(told.value))
    assert "me@" not in lines and "abcd" not in lines


def test_a_failed_upload_is_tried_again(store, monkeypatch, whole):
    upload, left = type(store).put_file, [OSError("500"), OSError("500")]

    def fails_twice(*told, **more):
        if left:
            raise left.pop()
        upload(*told, **more)

    monkeypatch.setattr(type(store), "put_file", fails_twice)
    assert_same_weights(fitted(URL, 4), whole[1][4])
    assert names(store) == files_of(2, 4) and not left
