"""An index with the states of pictures, by which queries rerank."""

import hashlib
import shutil

import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import states
from keras_bridgetower.apps.search.header import read_header
from keras_bridgetower.apps.search.header import state_files

pytestmark = FASTEST
TEXT = "a red circle"


def ranked(search):
    hits = search.query(TEXT, top_k=100, rerank=100)
    return {hit.path: hit.match for hit in hits}


def files_of(search):
    return state_files(search.store, read_header(search.store))


def sums_of(search):
    return {picture.sum for picture in search.store.pictures()}


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("float32", 1e-5), ("float16", 1e-3), ("int8", 0.05)],
)
def test_reranking_by_states_equals_that_by_files(
    matching, photos, lance_name, kind, tolerance
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states=kind)
    paths = [str(path) for path in sorted(photos.rglob("*_0.png"))]
    expected = matching.retrieval.score(paths, TEXT)
    # It reads no picture.
    for path in paths:
        open(path, "wb").close()
    found = ranked(search)
    assert sorted(found) == paths
    scores = np.array([found[path] for path in paths])
    np.testing.assert_allclose(scores, expected, atol=tolerance)
    if kind != "int8":
        assert list(found) == [paths[i] for i in np.argsort(-expected)]
    facts = kbt.search.info(search.store)
    layers, tokens, width = facts["states_shape"]
    size = {"float32": 4 * width, "float16": 2 * width, "int8": width + 4}[kind]
    assert facts["states"] == kind
    assert facts["state_bytes"] == layers * tokens * size
    rows = files_of(search).folder.glob("*.rows")
    assert sum(p.stat().st_size for p in rows) == 10 * facts["state_bytes"]


def test_states_are_stored_once_and_deleted_with_their_pictures(
    matching, photos, lance_name
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float16", batch_size=4)
    files = files_of(search)
    assert files.sums() == sums_of(search)
    before = {path.name for path in files.folder.iterdir()}
    # A copy of a picture shares its states.
    shutil.copy(photos / "ellipse/red_0.png", photos / "copy.png")
    report = search.index(photos)
    assert (report.copied, report.embedded) == (1, 0)
    assert {path.name for path in files.folder.iterdir()} == before
    expected = ranked(search)
    assert expected[str(photos / "copy.png")] == pytest.approx(
        expected[str(photos / "ellipse/red_0.png")], abs=1e-5
    )
    # Of one segment most are deleted, of the others one or none.
    gone = sorted(photos.rglob("*_0.png"))[:4]
    sums = {hashlib.sha256(p.read_bytes()).hexdigest() for p in gone}
    rows = {s: bytes(files.read([s])[0]._rows[0][:64]) for s in sums}
    for path in gone:
        path.unlink()
    kbt.search.prune(search.store)
    left = sums_of(search)
    assert files.sums() == left
    kept = b"".join(p.read_bytes() for p in files.folder.glob("*.rows"))
    for sum in sums - left:
        assert rows[sum] not in kept and files.read([sum])[1] == [False]
    found = ranked(search)
    assert found == pytest.approx({p: expected[p] for p in found}, abs=1e-5)
    kbt.search.remove(search.store, photos)
    assert list(files.folder.iterdir()) == []


def test_pictures_without_states_are_read_again(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float16")
    files, expected = files_of(search), ranked(search)
    # A kill has left rows without sums, and one in the middle of writing.
    first = next(files.folder.glob("*.sums"))
    first.unlink()
    (files.folder / "a.rows.part").write_bytes(b"1")
    assert ranked(search) == pytest.approx(expected, abs=1e-3)
    report = search.index(photos)
    assert (report.embedded, report.unchanged) == (10, 0)
    assert files.sums() == sums_of(search)
    assert len(list(files.folder.iterdir())) == 2
    assert ranked(search) == pytest.approx(expected, abs=1e-5)


def test_wrong_uses_of_states_are_refused(
    matching, three_way, photos, lance_name, tmp_path
):
    search = PictureSearch(lance_name, matching)
    with pytest.raises(ValueError, match="`states` must be one of.*bfloat16"):
        search.index(photos, states="bfloat16")
    search.index(photos)
    with pytest.raises(ValueError, match="`states` must be the same"):
        search.index(photos, states="int8")
    with pytest.raises(ValueError, match="`image_states` must be what"):
        matching.retrieval.score_states(np.zeros((2, 3)), TEXT)
    search = PictureSearch(tmp_path / "other", three_way)
    with pytest.raises(ValueError, match="`states` needs a preset with"):
        search.index(photos, states="int8")


def test_states_keep_their_values():
    values = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    values = (1000 * values).astype("float32")
    most = np.abs(values).max(-1, keepdims=True)
    for kind, part in (
        ("float32", 0),
        ("float16", 2**-11),
        ("int8", 0.5 / 127),
    ):
        format = states.StateFormat(kind, (2, 4, 5))
        rows = format.pack(values)
        assert rows.shape == (3, format.row_bytes)
        differences = np.abs(format.unpack(rows) - values)
        assert (differences <= 1.001 * part * most).all()
    with pytest.raises(ValueError, match="`states` must be 'float32'"):
        states.StateFormat("float16", (2, 4, 5)).pack(1e6 * values)
