"""Imports the frameworks, torch before TensorFlow, and what every test has."""

import functools
import gc
import logging
import os
import sys

import keras
import pytest

# The peers need torch under every backend, and imported after TensorFlow it
# can crash.
import torch  # noqa: F401, I001
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib

# By kind of object, the attributes that Keras passes over as it saves or loads
# one. Keras 3.15 keeps them under another name than it looks for, and finds
# them anew for each layer: an eighth of the time of a test that saves.
SKIPPED = {}


def pytest_collection_finish():
    """Leave out of garbage collection what was imported, and stays.

    A full one, as each error of `fit` asks for, went through all of it and
    took half a second.
    """
    for kind in ("Layer", "Functional", "Metric", "Optimizer", "Loss"):
        SKIPPED[kind] = saving_lib.get_attr_skipset(kind)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def opened_once():
    """Commands open a model once for all tests: that takes longest."""
    from keras_bridgetower.apps.search.models import SearchModels
    from keras_bridgetower.tasks import by_name

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (SearchModels, "from_preset"),
            (by_name, "open_verb"),
        ):
            patch.setattr(owner, name, functools.cache(getattr(owner, name)))
        yield


@pytest.fixture(scope="module", autouse=True)
def _same_start_of_a_module():
    keras.utils.set_random_seed(7)
    yield
    # What a module leaves for good slows down the collections of later ones.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)
    for kind, names in SKIPPED.items():
        key = f"saving_attr_skiplist_{kind}"
        global_state.set_global_attribute(key, names)
    yield
    keras.backend.clear_session(free_memory=False)


FOREIGN = None


def _watch(event, arguments):
    if FOREIGN is None or event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = arguments[event == "socket.connect"]
    host = host[0] if isinstance(host, tuple) else host
    host = host.decode() if isinstance(host, bytes) else host
    if event == "socket.connect" and not isinstance(arguments[1], tuple):
        return  # A socket of Unix.
    if host not in (None, "", "localhost", "::1") and host[:4] != "127.":
        FOREIGN.append(host)
        raise RuntimeError(f"a test asked the network for {host!r}")


sys.addaudithook(_watch)


@pytest.fixture
def loopback_only():
    """Fail a test that asks any other machine, be it in vain."""
    global FOREIGN
    FOREIGN = asked = []
    yield
    FOREIGN = None
    assert not asked


@pytest.fixture
def run(capsys):
    """Run a command here; return what it printed on stdout and stderr."""
    from keras_bridgetower.apps.cli import main

    def run(*words, code=0):
        capsys.readouterr()
        assert main.main([str(word) for word in words]) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of its own for what Keras and the package keep."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(home):
    """An object store in memory, which is empty again in the end."""
    fsspec = pytest.importorskip("fsspec", reason="the extra `object_stores`")
    found = fsspec.filesystem("memory")
    yield found
    for name in found.ls("/", detail=False):
        found.rm(name, recursive=True)


@pytest.fixture
def on_disk(monkeypatch):
    """A call that tells if a file and its folder are surely on the disk."""
    numbers, fsync = set(), os.fsync

    def noted(handle):
        fsync(handle)
        numbers.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    return lambda path: (
        {os.stat(path).st_ino, os.stat(os.path.dirname(path)).st_ino} <= numbers
    )


@pytest.fixture
def no_records_of_traces(monkeypatch):
    """PyTorch records what it traces, at length, for whoever listens."""
    logger = logging.getLogger("torch.__trace")
    monkeypatch.setattr(logger, "propagate", False)
