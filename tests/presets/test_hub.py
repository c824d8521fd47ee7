"""Hubs: the local cache first, then a network that may fail anywhere."""

import pathlib
import socket
import time

import huggingface_hub
import numpy as np
import pytest
from builders import FASTEST
from hub_server import COMMIT
from hub_server import OTHER
from hub_server import Hub
from hub_server import fill
from hub_server import serving
from hub_server import use
from huggingface_hub import constants

from keras_bridgetower.presets import hub

pytestmark = [FASTEST, pytest.mark.usefixtures("loopback_only")]
WEIGHTS = np.random.default_rng(0).bytes(50_000)
FOREIGN = {
    "config.json": b'{"text_config": {}}',
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocab.json": b"{}",
    "pytorch_model.bin": WEIGHTS,
}
OTHERS = {
    "README.md": b"#",
    "flax_model.msgpack": b"x" * 5000,
    "tf_model.h5": b"x" * 5000,
    "trainer_state.json": b"{}",
    "onnx/model.onnx": b"x" * 5000,
}
REPOSITORY = "someone/model"
HANDLE = f"hf://{REPOSITORY}"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A cache, and nobody who listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        cache = tmp_path / "cache"
        use(monkeypatch, cache, f"http://127.0.0.1:{bound.getsockname()[1]}")
        yield cache


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with one revision."""
    one = Hub({"main": COMMIT}, {COMMIT: FOREIGN | OTHERS})
    with serving(one, monkeypatch, tmp_path / "cache"):
        yield one


def no_request(*arguments, **kwargs):
    raise AssertionError("the network was asked")


@pytest.mark.parametrize("revision", ["main", "refs/pr/2", COMMIT])
def test_a_cached_revision_needs_no_network(revision, offline, monkeypatch):
    """Neither is it asked whether there is a newer one."""
    folder = fill(offline, REPOSITORY, COMMIT, FOREIGN, [revision])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_request)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_request)
    found = hub.fetch(f"{HANDLE}@{revision}", "x")
    assert pathlib.Path(found) == folder
    assert hub.fetch(HANDLE, "x", revision) == found
    if revision == "main":
        assert hub.fetch(HANDLE, "x") == found
    else:
        with pytest.raises(ValueError, match="fetched"):
            hub.fetch(HANDLE, "x")


SHARDS = {
    "pytorch_model.bin": None,
    "model.safetensors.index.json": b'{"weight_map": {"a": "m-1.safetensors",'
    b' "b": "m-2.safetensors"}}',
    "m-1.safetensors": b"1" * 2000,
    "m-2.safetensors": b"2" * 2000,
}
PRESET = {
    "config.json": b'{"registered_name": "x"}',
    "manifest.json": b'{"sha256": {"config.json": "", "README.md": "",'
    b' "assets/tokenizer/merges.txt": "", "model.weights.h5": "",'
    b' "extra.safetensors": ""}}',
    "assets/tokenizer/merges.txt": b"",
    "README.md": b"#",
    "model.weights.h5": b"3" * 2000,
    "extra.safetensors": b"4" * 2000,
}


def without(files, *names):
    kept = {k: v for k, v in files.items() if k not in names}
    return {k: v for k, v in kept.items() if v is not None}


@pytest.mark.parametrize(
    "files",
    [
        without(FOREIGN, "pytorch_model.bin"),
        without(FOREIGN, "tokenizer.json", "pytorch_model.bin"),
        without(FOREIGN | SHARDS, "m-2.safetensors"),
        without(PRESET, "assets/tokenizer/merges.txt"),
        without(PRESET, "model.weights.h5"),
        without(PRESET, "model.weights.h5", "manifest.json"),
    ],
)
def test_incomplete_snapshot_is_completed(files, offline, monkeypatch):
    fill(offline, REPOSITORY, COMMIT, files, ["main"])
    with pytest.raises(ValueError, match="could not be fetched.* pass the pa"):
        hub.fetch(HANDLE, "x")
    whole = PRESET if "registered" in str(files) else FOREIGN | SHARDS
    if whole is not PRESET:
        # A repository may have no tokenizer.
        whole = without(whole, "tokenizer.json")
    folder = fill(offline, REPOSITORY, COMMIT, without(whole), ["main"])
    assert hub.fetch(HANDLE, "x") == str(folder)


def test_missing_network_is_reported_at_once(offline):
    start = time.monotonic()
    with pytest.raises(ValueError, match="Check the name and the connection"):
        hub.fetch(HANDLE, "x")
    # The hub's own five attempts would wait for half a minute.
    assert time.monotonic() - start < 15


def present(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


SAFE = {"model.safetensors": b"s" * 2000}


@pytest.mark.parametrize(
    "files, expected",
    [
        (FOREIGN, FOREIGN),
        (FOREIGN | SAFE, without(FOREIGN, "pytorch_model.bin") | SAFE),
        (FOREIGN | without(SHARDS), without(FOREIGN | SHARDS)),
        (PRESET, PRESET),
    ],
)
def test_only_needed_files_are_fetched(files, expected, served):
    served.commits[COMMIT] = (OTHERS if files is not PRESET else {}) | files
    folder = hub.fetch(HANDLE, "x")
    if files is not PRESET:
        served.commits[COMMIT] = None
    assert present(folder) == expected
    asked = len(served.requests)
    assert hub.fetch(HANDLE, "x") == folder
    assert len(served.requests) == asked


def test_each_revision_has_its_own_files(served):
    tuned = FOREIGN | {"pytorch_model.bin": WEIGHTS[::-1]}
    served.revisions |= {"refs/pr/2": OTHER, "v1": OTHER}
    served.commits[OTHER] = tuned
    main = hub.fetch(HANDLE, "x")
    for revision in ("refs/pr/2", "v1", OTHER):
        folder = hub.fetch(HANDLE, "x", revision)
        assert folder != main and present(folder) == tuned
    assert present(main) == FOREIGN
    with pytest.raises(ValueError, match="could not be fetched.* Revision.*v9"):
        hub.fetch(f"{HANDLE}@v9", "x")


def test_an_interrupted_or_damaged_download_starts_again(served, monkeypatch):
    """All else has come, and no weights that might be taken for whole."""

    def check_missing(error):
        with pytest.raises(ValueError, match=f"could not be fetched.*{error}"):
            hub.fetch(HANDLE, "x")
        (cache,) = pathlib.Path(constants.HF_HUB_CACHE).glob("m*")
        kept = present(cache / "snapshots" / COMMIT)
        assert kept == without(FOREIGN, "pytorch_model.bin")
        assert not list(cache.glob("blobs/*.incomplete"))

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    served.stops_at = 20_000
    check_missing("")
    served.stops_at = None
    with monkeypatch.context() as patched:
        patched.setattr(hub.files, "sha256", lambda path: "0" * 64)
        check_missing("pytorch_model.bin arrived damaged")
    assert present(hub.fetch(HANDLE, "x")) == FOREIGN


@pytest.mark.parametrize(
    "revision", ["", "../x", "/x", "x@y", "x y", "x\n", "-x", "refs/../../x"]
)
def test_revisions_are_taken_strictly(revision, offline):
    with pytest.raises(ValueError, match="A revision is a branch"):
        hub.fetch(f"{HANDLE}@{revision}", "x")


def test_a_revision_is_given_once_and_with_a_handle(tmp_path):
    for preset in (f"{HANDLE}@a", "kaggle://a/b/keras/c", str(tmp_path)):
        with pytest.raises(ValueError, match="can only.*revision='main'"):
            hub.fetch(preset, preset, "main")
