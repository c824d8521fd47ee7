"""The cache of conversions: found by content, made once, never trusted."""

import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
import time
import warnings

import kagglehub
import pytest
from builders import FASTEST
from hub_server import COMMIT
from hub_server import Hub
from hub_server import fill
from hub_server import serving
from hub_server import use

import keras_bridgetower as kbt
from keras_bridgetower import files
from keras_bridgetower.convert import cache
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [
    FASTEST,
    pytest.mark.usefixtures("loopback_only", "home"),
    # Forks here only write files. JAX warns of them once another test ran it.
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
]


CONVERSION = 0.01  # Seconds of a stand-in.


def converted(source, published=None):
    return cache.open_converted(source, published).root


@pytest.fixture
def converting(monkeypatch, tmp_path):
    """A stand-in that converts anything; a file with a line for each time."""
    done = tmp_path / "conversions"
    done.touch()

    class Checkpoint:
        def save_to_preset(self, folder):
            with open(done, "a") as file:
                file.write("once\n")
            time.sleep(CONVERSION)
            registry.write(folder, self.write)

        def write(self, folder):
            for name in ("config.json", "model.weights.h5"):
                pathlib.Path(folder, name).write_text("{}" * 99)

    monkeypatch.setattr(cache, "open_checkpoint", lambda source: Checkpoint())
    return lambda: done.read_text().count("once")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    return folder


SIDES = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    "vocab.txt",
)


def test_cache_key_covers_all_files(converting, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    where = {"a": "one.weights", "b": "one.weights", "c": "two"}
    index = json.dumps({"weight_map": where}).encode()
    (folder / "pytorch_model.bin.index.json").write_bytes(index)
    (folder / "one.weights").write_bytes(b"1")
    (folder / "two").write_bytes(b"2")
    seen = [converted(folder)]
    for name in SIDES:  # That one is there at all counts, too.
        (folder / name).write_text("{}")
        seen.append(converted(folder))
    for name in (*SIDES, "one.weights", "two"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b" ")
        seen.append(converted(folder))
    assert len(set(seen)) == len(seen)
    for name in ("trainer_state.json", "model.weights.h5", "README.md"):
        (folder / name).write_text("{}")
    assert converted(folder) == seen[-1]


def test_damaged_digests_are_ignored(source, converting, home):
    folder = converted(source)
    remembered = home / "keras_bridgetower" / "presets" / "digests.json"
    for damage in (b"", b"\xff\xfe", b"[" * 100_000, b'{"a": ["b"]}'):
        remembered.write_bytes(damage)
        assert converted(source) == folder
    mark, _ = cache._file_states(source)[source / "pytorch_model.bin"]
    remembered.write_text(json.dumps({mark: "g" * 64}))
    assert converted(source) == folder
    assert converting() == 1


def test_digests_of_recent_files_are_not_stored(
    source, converting, monkeypatch
):
    read = []
    sha256 = files.sha256
    monkeypatch.setattr(
        files, "sha256", lambda path: read.append(path) or sha256(path)
    )
    for _ in range(2):
        cache._digests(cache._file_states(source))
    assert len(read) == 4
    monkeypatch.setattr(cache, "CLOCK_TICK", -1)
    for _ in range(2):
        cache._digests(cache._file_states(source))
    assert len(read) == 6


def test_checkpoint_changed_during_conversion_is_rejected(
    source, converting, home, monkeypatch
):
    sound = cache.open_checkpoint

    def changing(path):
        (source / "pytorch_model.bin").write_bytes(b"others")
        return sound(path)

    monkeypatch.setattr(cache, "open_checkpoint", changing)
    with pytest.raises(ConversionError, match="must not change"):
        converted(source)
    assert not list(home.rglob("manifest.json"))


def test_threads_and_processes_convert_once(source, converting, monkeypatch):
    monkeypatch.setitem(globals(), "CONVERSION", 0.5)
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(8)
    found = []

    def job():
        together.wait(60)
        found.append(converted(source))

    processes = [fork.Process(target=job) for _ in range(4)]
    workers = [*processes, *(threading.Thread(target=job) for _ in range(4))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [p.exitcode for p in processes] == [0] * 4
    assert len(set(found)) == 1 and len(found) == 4
    assert converting() == 1


def test_killed_conversion_is_repeated(source, converting):
    def die(source):
        os.kill(os.getpid(), signal.SIGKILL)

    def job():
        cache.open_checkpoint = die
        converted(source)

    process = multiprocessing.get_context("fork").Process(target=job)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and converting() == 0
    assert converted(source).is_dir() and converting() == 1


def test_damaged_conversion_is_repeated(source, converting, monkeypatch):
    folder = converted(source)
    config, seal = folder / "config.json", folder / "manifest.json"
    weights = folder / "model.weights.h5"
    whole = config.read_bytes()
    for count, damage in enumerate(
        (
            lambda: config.write_bytes(whole[:-1] + b"]"),
            config.unlink,
            weights.unlink,
            seal.unlink,
            lambda: seal.write_text("{"),
        ),
        2,
    ):
        damage()
        assert converted(source) == folder
        assert config.read_bytes() == whole
        assert converting() == count
    # The sum of the weights is known only later.
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match="weights.h5 was changed.*removed"):
        cache.open_converted(source).finish_check()
    shutil.rmtree(folder)
    cache.open_converted(source).finish_check()


def test_published_sums(source, converting, tmp_path):
    digest = files.sha256(source / "pytorch_model.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted(source, {"pytorch_model.bin": digest[:16]})
    with pytest.warns(
        UserWarning, match=f"pytorch_model.bin.*{digest[:16]}.*0123abcd"
    ):
        converted(source, {"pytorch_model.bin": "0123abcd"})
    handle = registry.PRESETS["bridgetower_large_itm_mlm_itc"].handle
    known = {"pytorch_model.bin": "deecb9697e35f9f7"}
    assert hub.published(handle) == hub.published(f"{handle}@main") == known
    assert hub.published(handle, "refs/pr/1") == {}
    for other in (f"{handle}@refs/pr/1", "hf://someone/model"):
        assert hub.published(other) == {}


def test_a_damaged_file_of_the_hubs_cache_is_named(
    converting, tmp_path, monkeypatch
):
    cached = tmp_path / "cache"
    use(monkeypatch, cached, "http://127.0.0.1:1")
    files = {"config.json": b"{}", "pytorch_model.bin": bytes(2000)}
    folder = fill(cached, "a/b", COMMIT, files, ["main"])
    registry.resolve("hf://a/b")
    path = (folder / "pytorch_model.bin").resolve()
    # Newer caches keep some files elsewhere, under sums of another kind.
    store = path.rename(tmp_path / ("a" * 64))
    path.symlink_to(store)
    registry.resolve("hf://a/b")
    path.write_bytes(bytes(1999) + b"1")
    with pytest.raises(ConversionError, match=f"Remove it.*{path.name}"):
        registry.resolve("hf://a/b")


def test_a_folder_may_be_named_like_a_preset_of_kerashub(tmp_path, monkeypatch):
    inside = registry.resolve("bridgetower_tiny_easy_mlm")
    shutil.copytree(inside, tmp_path / "roberta_base_en")
    monkeypatch.chdir(tmp_path)
    # A download would fail.
    monkeypatch.setattr(kagglehub, "model_download", None)
    opened = kbt.BridgeTowerTokenizer.from_preset("roberta_base_en")
    own = kbt.BridgeTowerTokenizer.from_preset(inside)
    assert opened.get_vocabulary() == own.get_vocabulary()


def test_a_handle_is_fetched_and_converted_once(
    converting, source, tmp_path, monkeypatch
):
    (source / "tokenizer.json").write_text("{}")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    one = Hub({"main": COMMIT, "refs/pr/2": COMMIT}, {COMMIT: files})
    handle = "hf://someone/model@refs/pr/2"
    with serving(one, monkeypatch, tmp_path / "cache"):
        folder = registry.resolve(handle)
        asked = len(one.requests)
        assert registry.resolve(handle) == folder
        assert len(one.requests) == asked > 0
    # It goes by content, from wherever that comes.
    monkeypatch.setitem(
        hub.DOWNLOADS, "kaggle", lambda handle: str(source.parent / handle)
    )
    assert registry.resolve("kaggle://theirs") == folder
    assert registry.resolve(handle) == registry.resolve(source) == folder
    assert converting() == 1
