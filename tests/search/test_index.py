"""Test what `index` writes, keeps, removes and reports."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from builders import FASTEST
from drawn_photos import SHAPES
from drawn_photos import draw
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import SearchModels
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.tasks.inference import Forward

pytestmark = FASTEST


def found_by(search):
    """Each hit of a query, its path and similarity; none comes twice."""
    hits = search.query("a red circle", top_k=100, rerank=0)
    found = {hit.path: hit.similarity for hit in hits}
    assert len(found) == len(hits)
    return found


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
    assert set(found_by(search)) == set(map(str, photos.rglob("*_0.png")))
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    last = seen[-1]
    assert (last.done, last.total, last.embedded) == (11, 11, 10)
    assert last.unreadable == 1
    facts = kbt.search.info(search.store)
    assert facts["pictures"] == 10 and facts["whole"] is True
    assert facts["preset"] == matching.preset and facts["width"] == 64
    assert facts["image_mode"] == "squash" and len(facts["sum"]) == 64


def test_a_pass_has_few_pictures_by_default(matching, photos, lance_name):
    """A convolutional tower takes 40 MB for each."""
    rows, run = [], Forward.__call__

    def counted(part, inputs):
        rows.append(len(inputs["images"]))
        return run(part, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forward, "__call__", counted)
        report = PictureSearch(lance_name, matching).index(photos)
    assert (report.embedded, max(rows)) == (10, 8)


def test_index_is_synchronized_with_its_source(photos, search):
    changed = photos / "ellipse" / "red_0.png"
    Image.new("RGB", (64, 64), "blue").save(changed)
    (photos / "ellipse" / "blue_0.png").unlink()
    Image.new("RGB", (30, 20), "red").save(photos / "broken.png")
    report = search.index(photos)
    assert (report.embedded, report.unchanged, report.removed) == (2, 8, 1)
    first, *others = search.query(image=changed, top_k=100)
    assert first.path == str(changed) and first.similarity > 1 - 1e-5
    assert len(others) == 9
    # A file that is damaged now has no vector any more.
    changed.write_bytes(b"\x89PNG\r\n\x1a\n")
    report = search.index(photos)
    assert (report.embedded, report.removed) == (0, 1)
    assert str(changed) not in found_by(search)


def test_pictures_of_unreadable_folders_are_kept(photos, lance, monkeypatch):
    (photos / "rectangle/red_0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("ellipse"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    report = lance.index(photos)
    assert report.passed_over["folder that cannot be read"] == 1
    assert (report.unchanged, report.removed) == (4, 1)
    assert lance.store.count() == 9


def test_a_name_that_is_not_utf8_is_named(matching, photos, lance_name):
    bad = os.fsencode(photos) + b"/\xff.png"
    shutil.copy(os.fsencode(photos / "ellipse/red_0.png"), bad)
    report = PictureSearch(lance_name, matching).index(photos)
    assert report.embedded == 10
    assert any("utf-8" in bad.error for bad in report.unreadable)


def check_moved(search, source, before):
    after = found_by(search)
    assert set(after) == {str(p) for p in source.rglob("*_0.png")}
    assert sorted(after.values()) == pytest.approx(sorted(before.values()))


def test_moved_files_are_not_embedded_again(photos, search):
    before = found_by(search)
    (photos / "ellipse").rename(photos / "round")
    report = search.index(photos)
    assert (report.embedded, report.copied, report.removed) == (0, 5, 5)
    check_moved(search, photos, before)
    source = photos.rename(photos.parent / "moved")
    report = search.index(source)
    assert (report.embedded, report.copied, report.removed) == (0, 10, 10)
    check_moved(search, source, before)
    assert search.index(source).unchanged == 10


def test_an_interrupted_move_goes_on(photos, search):
    def stop(progress):
        if progress.done >= 6:
            raise KeyboardInterrupt

    before = found_by(search)
    moved = photos.rename(photos.parent / "moved")
    with pytest.raises(KeyboardInterrupt):
        search.index(moved, batch_size=2, save_every=2, progress=stop)
    assert 10 < search.store.count() < 20
    report = search.index(moved)
    assert report.embedded == 0 and 0 < report.unchanged < 10
    assert report.copied == 10 - report.unchanged and report.removed == 10
    check_moved(search, moved, before)


@pytest.mark.parametrize("save_every", [1, 512])
def test_a_new_picture_under_the_old_name_of_another(
    matching, photos, search, save_every
):
    """Vectors are copied before the picture they belong to is replaced."""
    first, last = photos / "ellipse/black_0.png", photos / "z_0.png"
    first.rename(last)
    Image.new("RGB", (40, 40), "orange").save(first)
    one, other = photos / "rectangle/red_0.png", photos / "rectangle/blue_0.png"
    aside = one.rename(photos / "aside")
    other.rename(one)
    aside.rename(other)
    report = search.index(photos, batch_size=1, save_every=save_every)
    assert report.embedded + report.copied == 4
    files = sorted(photos.rglob("*_0.png"))
    vectors = matching.contrastive.embed(images=files)
    query = matching.embed_query("a red circle")
    wanted = dict(zip(map(str, files), vectors @ query, strict=True))
    assert found_by(search) == pytest.approx(wanted, abs=1e-5)


def test_overlapping_folders_share_pictures(matching, photos, store_name):
    search = PictureSearch(store_name, matching)
    (photos.parent / "link").symlink_to(photos)
    search.index(photos / "ellipse")
    for source in (photos, photos.parent / "link", photos / "rectangle"):
        report = search.index(source)
    assert (report.embedded, report.unchanged, report.removed) == (0, 5, 0)
    assert search.store.count() == 10
    # Whichever folder is indexed, its pictures that are gone leave.
    (photos / "ellipse/red_0.png").unlink()
    assert search.index(photos).removed == 1
    (photos / "rectangle/red_0.png").unlink()
    assert search.index(photos / "rectangle").removed == 1
    assert len(found_by(search)) == search.store.count() == 8
    # A folder in which a link leads elsewhere has no say there.
    other = draw(photos.parent / "other")
    (photos / "linked").symlink_to(other)
    report = search.index(photos / "linked")
    assert (report.embedded, report.copied) == (2, 8)
    assert search.index(photos).removed == 0
    assert search.store.count() == 18


@pytest.mark.parametrize("how", ["emptied", "missing"])
def test_a_source_without_pictures_keeps_its_vectors(photos, search, how):
    """It may be a disk that is not mounted; `prune` is for the rest."""
    other = draw(photos.parent / "other", SHAPES[:1])
    search.index(other)
    mounted = photos.rename(photos.parent / "mounted")
    if how == "emptied":
        photos.mkdir()
    with pytest.raises(ValueError, match="SOURCE must"):
        search.index(photos)
    with pytest.warns(UserWarning, match="files are gone: .*`prune`"):
        hits = search.query("a red circle", top_k=20)
    assert {hit.folder for hit in hits} == {str(other)} and len(hits) == 5
    if how == "emptied":
        photos.rmdir()
    mounted.rename(photos)
    assert search.index(photos).unchanged == 10
    shutil.rmtree(photos)
    assert kbt.search.prune(search.store, other) == []
    removed = kbt.search.prune(search.store)
    assert len(removed) == 10 and removed[0].startswith(str(photos))
    assert len(found_by(search)) == 5


def test_pictures_folders_and_tables_are_removed(photos, store_name, search):
    table = photos / "one.jsonl"
    table.write_text('{"image": "ellipse/red_0.png", "text": "a circle"}\n')
    search.index(table)
    # Rows of a table stay, whatever is found in its folder.
    assert search.index(photos).removed == 0
    assert search.store.count() == 11
    remove = kbt.search.remove
    name = str(photos / "rectangle/red_0.png")
    assert remove(search.store, name) == [name]
    with pytest.raises(ValueError, match="`path` must be a picture, a folder"):
        remove(search.store, name)
    assert remove(search.store, table) == [str(photos / "ellipse/red_0.png")]
    # Also by another name of the folder, and if the files are gone.
    (photos.parent / "link").symlink_to(photos)
    shutil.rmtree(photos / "rectangle")
    assert len(remove(search.store, photos.parent / "link/rectangle")) == 4
    assert len(found_by(search)) == search.store.count() == 5
    # Files that were not deleted come back.
    assert remove(search.store, photos)
    assert search.index(photos).embedded == 5


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
    embed = three_way.contrastive.embed
    wanted = embed(photos / "ellipse/red_0.png", "a red circle")
    by_name = {hit.name: hit for hit in search.query("a red circle")}
    similarity = float(embed(texts="a red circle") @ wanted)
    assert by_name["a"].similarity == pytest.approx(similarity, abs=1e-5)
    assert by_name["b"].text == "what is it?" and len(by_name) == 2
    with pytest.raises(ValueError, match="same for all pictures of an index"):
        search.index(photos)
    # An index of pairs remembers how texts were read.
    assert kbt.search.info(lance_name)["sequence_length"] == 16
    longer = SearchModels.from_preset(three_way.preset, sequence_length=20)
    with pytest.raises(ValueError, match=r"'sequence_length': \(16, 20\)"):
        PictureSearch(lance_name, longer).index(table, vectors="fused")


def test_a_preset_folder_is_found_from_anywhere(
    matching, photos, lance_name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PRESETS[matching.preset].path, tmp_path / "mine")
    report = PictureSearch(lance_name, "mine").index(photos)
    assert report.embedded == 10
    monkeypatch.chdir(photos)
    assert PictureSearch(lance_name).query("a circle", top_k=1)
    # Its name does not matter: the weights are those of the other.
    assert PictureSearch(lance_name, matching).query("a circle", top_k=1)


# Says after each batch how many pictures are finished.
RUN = """
import sys, keras_bridgetower as kbt
photos, store, preset = sys.argv[1:]
kbt.search.PictureSearch(store, preset).index(
    photos, batch_size=4, save_every=4,
    progress=lambda p: print(p.done, flush=True))
"""


@pytest.mark.slow
def test_an_index_goes_on_after_kills(store_name, matching, tmp_path):
    photos = draw(tmp_path / "many", copies=4)
    words = [sys.executable, "-c", RUN, photos, store_name, matching.preset]
    for batches in (1, 2, 4):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
            for _ in range(batches):
                running.stdout.readline()
            running.kill()
    search = PictureSearch(store_name, matching)
    before = search.store.count()
    report = search.index(photos)
    assert 0 < before < 40 and before <= report.unchanged
    assert report.embedded + report.unchanged == 40
    files = sorted(photos.rglob("*_?.png"))
    query = matching.embed_query("a red circle")
    vectors = matching.contrastive.embed(images=files)
    wanted = dict(zip(map(str, files), vectors @ query, strict=True))
    assert found_by(search) == pytest.approx(wanted, abs=1e-5)
