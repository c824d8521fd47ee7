"""Hubs: the local cache first, then a network that may fail anywhere."""

import contextlib
import hashlib
import io
import multiprocessing
import pathlib
import socket
import sys
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
from keras_bridgetower.presets import registry

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


@pytest.mark.parametrize("silenced", [True, False])
@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/2", COMMIT])
def test_a_cached_revision_needs_no_network(
    revision, silenced, offline, monkeypatch
):
    """Neither is it asked whether there is a newer one."""
    folder = fill(offline, REPOSITORY, COMMIT, FOREIGN, [revision])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", silenced)
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
    "files, lacks",
    [
        (without(FOREIGN, "pytorch_model.bin"), "weights"),
        (
            without(FOREIGN, "tokenizer.json", "pytorch_model.bin"),
            "a tokenizer",
        ),
        (without(FOREIGN | SHARDS, "m-2.safetensors"), "m-2.safetensors"),
        (without(PRESET, "README.md"), "README.md"),
        (without(PRESET, "assets/tokenizer/merges.txt"), "merges.txt"),
        (without(PRESET, "extra.safetensors"), "extra.safetensors"),
        (without(PRESET, "model.weights.h5"), "model.weights.h5"),
        (without(PRESET, "model.weights.h5", "manifest.json"), "weights"),
    ],
)
def test_incomplete_snapshot_is_completed(files, lacks, offline, monkeypatch):
    fill(offline, REPOSITORY, COMMIT, files, ["main"])
    with pytest.raises(ValueError, match=f"it lacks .*{lacks}.* pass the path"):
        hub.fetch(HANDLE, "x")
    whole = PRESET if "registered" in str(files) else FOREIGN | SHARDS
    fill(offline, REPOSITORY, COMMIT, without(whole), ["main"])
    hub.fetch(HANDLE, "x")


def test_a_repository_without_tokenizer_opens_offline(offline):
    files = without(FOREIGN, "tokenizer.json")
    folder = fill(offline, REPOSITORY, COMMIT, files, ["main"])
    assert hub.fetch(HANDLE, "x") == str(folder)


@pytest.mark.parametrize("silenced", [True, False])
def test_missing_network_is_reported_at_once(silenced, offline, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", silenced)
    start = time.monotonic()
    with pytest.raises(ValueError, match="Check the name and the connection"):
        hub.fetch(HANDLE, "x")
    # The hub's own five attempts would wait for half a minute.
    assert time.monotonic() - start < 15


def test_silent_hub_times_out(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        use(monkeypatch, tmp_path, f"http://127.0.0.1:{port}")
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        start = time.monotonic()
        with pytest.raises(ValueError, match="[Tt]imeout.*pass the path"):
            hub.fetch(HANDLE, "x")
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
    with pytest.raises(ValueError, match="could not be fetched: Revision.*v9"):
        hub.fetch(f"{HANDLE}@v9", "x")


@pytest.fixture
def resumed_at(served, monkeypatch):
    """The ranges of the weights that are asked for, from now on."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def resumed():
        served.stops_at = None
        del served.requests[:]
        assert present(hub.fetch(HANDLE, "x")) == FOREIGN
        asked = [r for m, p, r in served.requests if m == "GET" and ".bin" in p]
        return asked

    return resumed


@pytest.mark.parametrize("parts", [True, False])
def test_an_interrupted_download_continues(parts, served, resumed_at):
    served.stops_at = 20_000
    with pytest.raises(ValueError, match="could not be fetched"):
        hub.fetch(HANDLE, "x")
    # All else has come, and no weights that might be taken for whole.
    (cache,) = pathlib.Path(constants.HF_HUB_CACHE).glob("m*")
    kept = present(cache / "snapshots" / COMMIT)
    assert kept == without(FOREIGN, "pytorch_model.bin")
    served.parts = parts
    assert resumed_at() == ["bytes=20000-"]
    assert not list(cache.glob("blobs/*.incomplete"))


def test_a_killed_download_continues(served, resumed_at):
    served.stops_at, served.stalls = 30_000, True
    process = multiprocessing.get_context("fork").Process(
        target=hub.fetch, args=(HANDLE, "x")
    )
    process.start()
    cache = pathlib.Path(constants.HF_HUB_CACHE)
    deadline, size = time.monotonic() + 30, 0
    while size != 30_000:
        assert time.monotonic() < deadline
        for part in cache.glob("*/blobs/*.incomplete"):
            # A complete file is renamed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                size = part.stat().st_size
    process.kill()
    process.join()
    assert resumed_at() == ["bytes=30000-"]


def test_damaged_partial_download_is_removed(served):
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    hub_cache = pathlib.Path(constants.HF_HUB_CACHE)
    part = hub_cache / "models--someone--model" / "blobs"
    part.mkdir(parents=True)
    (part / f"{sha256}.part.incomplete").write_bytes(bytes(10_000))
    with pytest.raises(ValueError, match="pytorch_model.bin arrived damaged"):
        hub.fetch(HANDLE, "x")
    assert present(hub.fetch(HANDLE, "x")) == FOREIGN


def test_terminal_shows_progress_bar(served, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    hub.fetch(HANDLE, "x")
    assert "pytorch_model.bin: 100%" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *("", "a/b/c", "../a", "a/../b", "/etc/a", "a/b@", "a/b@../x", "@a"),
        *("a/b@/x", "a/b@x/", "a/b@x@y", "a/b@x y", "a--b/c", "a/b@x\n"),
        *("a/b@refs/../../x", "a b/c", "a/b@-x", "a/b?c=d"),
    ],
)
def test_handles_are_taken_strictly(name, offline):
    with pytest.raises(ValueError, match="'hf://user/model@revision'.*Receiv"):
        registry.resolve(f"hf://{name}")
    assert not offline.exists()


def test_a_revision_is_given_once_and_with_a_handle(offline, tmp_path):
    for revision in ("../x", "", 3, "a@b"):
        with pytest.raises(ValueError, match="revision=.*|Received: preset"):
            hub.fetch(HANDLE, HANDLE, revision)
    with pytest.raises(ValueError, match="given once.*revision='b'"):
        hub.fetch(f"{HANDLE}@a", HANDLE, "b")
    for preset in ("kaggle://a/b/keras/c", str(tmp_path), "bridgetower_x"):
        with pytest.raises(ValueError, match="can only.*revision='main'"):
            hub.fetch(preset, preset, "main")
