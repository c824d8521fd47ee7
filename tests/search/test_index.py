"""What `index` writes, keeps, removes and names."""

import collections
import json
import os
import pathlib
import shutil

import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing import images
from keras_bridgetower.search import PictureSearch
from keras_bridgetower.search import reading

pytestmark = FASTEST


def paths_in(search):
    vector = search.models.embed_query(text="a red circle")
    found = search.store.nearest(vector, 1000)
    return sorted(stored.path for stored, _ in found)


def test_every_picture_is_indexed_and_the_unreadable_are_named(
    matching, photos, store_name
):
    seen = []
    search = PictureSearch(store_name, matching)
    report = search.index(photos, batch_size=4, progress=seen.append)
    assert (report.total, report.embedded, report.unchanged) == (11, 10, 0)
    (bad,) = report.unreadable
    assert bad.path == "broken.png" and "readable image file" in bad.error
    assert report.passed_over == {".txt": 1}
    assert paths_in(search) == sorted(
        p.relative_to(photos).as_posix() for p in photos.rglob("*_0.png")
    )
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    last = seen[-1]
    assert (last.done, last.total, last.embedded) == (11, 11, 10)
    assert last.unreadable == 1
    said = kbt.search.info(search.store)
    assert said["pictures"] == 10 and said["whole"] is True
    assert said["preset"] == matching.preset and said["width"] == 64
    assert said["image_mode"] == "squash" and len(said["sum"]) == 64


def test_what_is_unchanged_is_not_embedded_again(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    search.index(photos)
    data = pathlib.Path(lance_name).rglob("*.lance")
    before = {path: path.stat().st_mtime_ns for path in data}
    assert before
    # Other times, the same content.
    for path in photos.rglob("*.png"):
        os.utime(path)
    report = search.index(photos)
    assert (report.embedded, report.unchanged) == (0, 10)
    data = pathlib.Path(lance_name).rglob("*.lance")
    assert {path: path.stat().st_mtime_ns for path in data} == before


def test_a_picture_is_read_once(matching, photos, lance_name, monkeypatch):
    """For its sum and its pixels; a large one only in pieces."""
    opened = collections.Counter()
    for module in (reading, images):

        def counted(path, open_regular=module.open_regular):
            opened[pathlib.Path(path)] += 1
            return open_regular(path)

        monkeypatch.setattr(module, "open_regular", counted)
    search = PictureSearch(lance_name, matching)
    search.index(photos)
    assert set(opened.values()) == {1} and len(opened) == 11
    vector = matching.embed_query(image=photos / "ellipse/red_0.png")
    found = search.store.nearest(vector, 100)
    assert found[0][0].path == "ellipse/red_0.png" and found[0][1] > 1 - 1e-5
    monkeypatch.setattr(reading, "_HELD", 10)
    pieces = PictureSearch(f"{lance_name}.pieces", matching)
    pieces.index(photos)
    assert pieces.store.nearest(vector, 100) == found


def test_the_index_follows_its_source(matching, photos, store_name):
    search = PictureSearch(store_name, matching)
    search.index(photos)
    changed = photos / "ellipse" / "red_0.png"
    Image.new("RGB", (64, 64), "blue").save(changed)
    (photos / "ellipse" / "blue_0.png").unlink()
    Image.new("RGB", (30, 20), "red").save(photos / "broken.png")
    report = search.index(photos)
    assert (report.embedded, report.unchanged, report.removed) == (2, 8, 1)
    found = dict(
        (stored.path, similarity)
        for stored, similarity in search.store.nearest(
            matching.embed_query(image=changed), 100
        )
    )
    assert len(found) == 10 and found["ellipse/red_0.png"] > 1 - 1e-5
    # A file that is damaged now has no vector any more.
    changed.write_bytes(b"\x89PNG\r\n\x1a\n")
    report = search.index(photos)
    assert (report.embedded, report.removed) == (0, 1)
    assert "ellipse/red_0.png" not in paths_in(search)


def test_a_folder_that_cannot_be_read_stays_in_the_index(
    matching, photos, lance_name, monkeypatch
):
    search = PictureSearch(lance_name, matching)
    search.index(photos)
    (photos / "rectangle/red_0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("ellipse"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    report = search.index(photos)
    assert report.passed_over["folder that cannot be read"] == 1
    assert (report.unchanged, report.removed) == (4, 1)
    assert search.store.count() == 9


def test_a_name_that_is_not_utf8_is_named(matching, photos, lance_name):
    bad = os.fsencode(photos) + b"/\xff.png"
    shutil.copy(os.fsencode(photos / "ellipse/red_0.png"), bad)
    report = PictureSearch(lance_name, matching).index(photos)
    assert report.embedded == 10
    assert any("must be UTF-8" in bad.error for bad in report.unreadable)


def test_sources_stand_beside_each_other(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    search.index(photos / "ellipse")
    report = search.index(photos / "rectangle")
    assert (report.embedded, report.removed) == (5, 0)
    assert search.store.count() == 10


def test_a_table_with_texts_is_embedded_as_pairs(three_way, photos, lance_name):
    table = photos / "table.jsonl"
    rows = [
        {"id": "a", "image": "ellipse/red_0.png", "text": "a red circle"},
        {"id": "b", "image": "ellipse/red_0.png", "text": "what is it?"},
        {"id": "c", "image": "gone.png", "text": "a circle"},
        {"id": "d", "image": "ellipse/blue_0.png", "text": "circle " * 60},
        {"id": "e", "image": "ellipse/blue_0.png"},
        {"id": "a", "image": "ellipse/red_0.png", "text": "a red circle"},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    search = PictureSearch(lance_name, three_way)
    report = search.index(table, vectors="fused")
    assert (report.total, report.embedded) == (6, 2)
    errors = sorted(bad.error for bad in report.unreadable)
    wrong = ("sequence_length=16", "No such file", "columns text", "same row")
    for part in wrong:
        assert len([error for error in errors if part in error]) == 1, errors
    wanted = three_way.contrastive.embed(
        photos / "ellipse/red_0.png", "a red circle"
    )
    first, second = search.query("a red circle")
    by_name = {hit.name: hit for hit in (first, second)}
    query = three_way.contrastive.embed(texts="a red circle")
    assert by_name["a"].similarity == pytest.approx(
        float(query @ wanted), abs=1e-5
    )
    assert by_name["b"].text == "what is it?"
    with pytest.raises(ValueError, match="same for all pictures of an index"):
        search.index(photos)


def test_what_cannot_be_indexed_is_refused_at_once(
    matching, photos, lance_name, tmp_path
):
    search = PictureSearch(lance_name, matching)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="at least one row"):
        search.index(empty)
    with pytest.raises(ValueError, match="must be a folder, or a file"):
        search.index(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="contrastive head is two_way"):
        search.index(_table(photos), vectors="fused")
    assert not pathlib.Path(lance_name).exists()
    for name in ("batch_size", "save_every", "ann_from"):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
            search.index(photos, **{name: 0})
    unknown = PictureSearch(tmp_path / "other", "bridgetower_nobody")
    with pytest.raises(ValueError, match="`preset` must be one of the names"):
        unknown.index(photos)
    headless = PictureSearch(tmp_path / "other", "bridgetower_tiny_easy_mlm")
    with pytest.raises(ValueError, match="a trained contrastive head"):
        headless.index(photos)
    assert not (tmp_path / "other").exists()


def test_a_preset_folder_is_found_from_anywhere(
    matching, photos, lance_name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    preset = pathlib.Path(kbt.__file__).parent / "presets" / matching.preset
    shutil.copytree(preset, tmp_path / "mine")
    report = PictureSearch(lance_name, "mine").index(photos)
    assert report.embedded == 10
    monkeypatch.chdir(photos)
    assert PictureSearch(lance_name).query("a circle", top_k=1)
    # Its name does not matter: the weights are those of the other.
    assert PictureSearch(lance_name, matching).query("a circle", top_k=1)


def _table(photos):
    table = photos / "one.jsonl"
    table.write_text('{"image": "ellipse/red_0.png", "text": "a circle"}\n')
    return table
