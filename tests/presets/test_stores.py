"""Presets in object stores: written as a whole, fetched once, and checked."""

import json
import pathlib
import traceback

import pytest
from builders import FASTEST
from builders import array
from builders import assert_same_weights
from builders import one_layer_each
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower import object_stores
from keras_bridgetower.files import FolderExists
from keras_bridgetower.object_stores import is_url

pytestmark = FASTEST
URL = "memory://bucket/preset"


def saved(url=URL):
    task = vqa(**one_layer_each())
    task.save_to_preset(url)
    return task


def test_a_saved_preset_is_fetched_once(store):
    task = saved()
    for _ in range(2):
        again = kbt.BridgeTowerVQA.from_preset(URL)
        assert again.preprocessor.answers == task.preprocessor.answers
        assert_same_weights(again, task)
        # From now on, only the manifest is in the store.
        for path in store.find("/bucket/preset"):
            if not path.endswith("manifest.json"):
                store.rm(path)


def test_a_failed_read_is_tried_again(store, monkeypatch):
    """The manifest, and each of the files that it names."""
    saved()
    fetch, tried = type(store).get_file, set()

    def fails_once(self, path, *told, **more):
        if path not in tried:
            tried.add(path)
            raise OSError("500")
        return fetch(self, path, *told, **more)

    monkeypatch.setattr(object_stores, "_PAUSE", 0.01, raising=False)
    monkeypatch.setattr(type(store), "get_file", fails_once)
    kbt.BridgeTowerVQA.from_preset(URL)
    assert tried == {*store.find("/bucket")}


def test_large_files_are_refused_before_they_are_read(store):
    """By an error that shows no user name."""
    url = "memory://me@bucket/preset"
    saved(url)
    for name in ("config.json", "manifest.json"):
        store.pipe_file(f"/me@bucket/preset/{name}", bytes(65_000_000))
        with pytest.raises(ValueError, match=f"{name} .* more than") as told:
            kbt.BridgeTowerVQA.from_preset(url)
        assert "me@" not in "".join(traceback.format_exception(told.value))


def test_a_replaced_preset_is_fetched_anew(store):
    saved()
    before = kbt.BridgeTowerVQA.from_preset(URL)
    with pytest.raises(FolderExists):
        saved()
    store.rm("/bucket/preset", recursive=True)
    saved()
    after = kbt.BridgeTowerVQA.from_preset(URL)
    pairs = zip(before.weights, after.weights, strict=True)
    assert any((array(one) != array(other)).any() for one, other in pairs)


def test_damaged_files_are_refused_and_not_kept(store):
    saved()
    path = "/bucket/preset/config.json"
    whole = store.cat_file(path)
    store.pipe_file(path, whole.replace(b"{", b"{ ", 1))
    with pytest.raises(ValueError, match="config.json: its checksum differs"):
        kbt.BridgeTowerVQA.from_preset(URL)
    store.pipe_file(path, whole)
    kbt.BridgeTowerVQA.from_preset(URL)


def test_a_manifest_cannot_write_elsewhere(store, tmp_path):
    saved()
    path = "/bucket/preset/manifest.json"
    values = json.loads(store.cat_file(path))
    values["sha256"]["../../escaped"] = "0" * 64
    store.pipe_file(path, json.dumps(values).encode())
    with pytest.raises(ValueError, match="files outside its folder"):
        kbt.BridgeTowerVQA.from_preset(URL)
    assert not [*tmp_path.rglob("escaped")]


def test_what_was_not_written_completely_is_no_preset(store):
    saved()
    store.rm("/bucket/preset/manifest.json")
    with pytest.raises(ValueError, match="be fetched: .*FileNotFound"):
        kbt.BridgeTowerVQA.from_preset(URL)
    # Nothing that is there is overwritten.
    with pytest.raises(FolderExists):
        saved()


def test_paths_that_look_like_urls(store, tmp_path):
    with pytest.raises(ValueError, match="must be a str, with '://'"):
        saved(pathlib.Path("s3://bucket/preset"))
    assert not is_url(r"C:\presets") and not is_url("C://presets")
