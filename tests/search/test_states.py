"""An index with the states of pictures, by which queries rerank."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search.header import read_header
from keras_bridgetower.apps.search.header import state_files
from keras_bridgetower.apps.search.stores.store import StoreError
from keras_bridgetower.preprocessing import state_files as states

pytestmark = FASTEST
TEXT = "a red circle"


def ranked(search):
    hits = search.query(TEXT, top_k=100, rerank=100)
    return {hit.path: hit.match for hit in hits}


def files_of(search):
    return state_files(search.store, read_header(search.store))[0]


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
    tokens, width = facts["states_shape"]
    # In int8 each channel has a scale.
    size = {"float32": 4 * tokens, "float16": 2 * tokens, "int8": tokens + 4}
    assert facts["states"] == kind
    assert facts["state_bytes"] == width * size[kind]
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
    rows = {s: bytes(files.read([s])[0]._rows[0][-1][:64]) for s in sums}
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
    assert [x.name for x in files.folder.iterdir()] == ["states.json"]


def test_states_that_are_open_stay_as_written(matching, photos, lance_name):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float32", batch_size=4)
    files, sums = files_of(search), sorted(sums_of(search))
    found, there = files.read(sums)
    assert all(there)
    before = found[:]
    for path in sorted(photos.rglob("*_0.png"))[::3]:
        kbt.search.remove(search.store, path)
    assert np.array_equal(found[:], before)
    assert files.read(sums)[1].count(False) == 4


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
    assert len(list(files.folder.iterdir())) == 3
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
    search = PictureSearch(tmp_path / "other", three_way)
    with pytest.raises(ValueError, match="`states` needs a preset with"):
        search.index(photos, states="int8")


def test_states_keep_their_values():
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    values = (1000 * values).astype("float32")
    most = np.abs(values).max(1, keepdims=True)
    for kind, part in (
        ("float32", 0),
        ("float16", 2**-11),
        ("int8", 0.5 / 127),
    ):
        format = states.StateFormat(kind, (4, 5))
        rows = format.pack(values)
        assert rows.shape == (3, format.row_bytes)
        differences = np.abs(format.unpack(rows) - values)
        assert (differences <= 1.001 * part * most).all()
    with pytest.raises(ValueError, match="`states` must be 'float32'"):
        states.StateFormat("float16", (4, 5)).pack(1e6 * values)


class Index:
    """An index that is damaged on purpose: a segment has four pictures."""

    def __init__(self, search):
        self.files, self.pictures = files_of(search), sorted(sums_of(search))
        self.header = search.store.folder / "search.json"
        self.sizes = {"rows": self.files.format.row_bytes, "sums": 64}
        self.paths = {}
        for kind in KINDS:
            found = self.files.folder.glob(f"*.{kind}")
            by_size = sorted(found, key=lambda p: (-p.stat().st_size, p.name))
            self.paths[kind] = by_size

    def edit(self, kind, edit):
        path = self.paths[kind][0]
        path.write_bytes(edit(path.read_bytes()))

    def flip(self, place, kind):
        def edit(data):
            at = int(place * (len(data) - 1))
            return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

        self.edit(kind, edit)

    def swap_segments(self, *kinds):
        for kind in kinds:
            one, two = (path.read_bytes() for path in self.paths[kind][:2])
            self.paths[kind][0].write_bytes(two)
            self.paths[kind][1].write_bytes(one)

    def swap_pictures(self, *kinds):
        for kind in kinds:
            n = self.sizes[kind]
            self.edit(kind, lambda x, n=n: x[n : 2 * n] + x[:n] + x[2 * n :])

    def swap_tokens(self):
        n = self.sizes["rows"] // self.files.format.shape[0]
        self.edit("rows", lambda x: x[n : 2 * n] + x[:n] + x[2 * n :])

    def erase(self, *kinds):
        for kind in kinds:
            n = self.sizes[kind]
            self.edit(kind, lambda x, n=n: bytes(n) + x[n:])

    def cut(self, size, *kinds):
        for kind in kinds:
            n = size or self.sizes[kind]
            self.edit(kind, lambda x, n=n: x[:-n])

    def extend(self, size, *kinds):
        for kind in kinds:
            n = size or self.sizes[kind]
            self.edit(kind, lambda x, n=n: x + x[:n])

    def remove(self, *kinds):
        for kind in kinds:
            self.paths[kind][0].unlink()

    def make_folder(self, kind):
        self.remove(kind)
        self.paths[kind][0].mkdir()

    def copy(self, *kinds):
        for kind in kinds:
            copy = self.files.folder / f"another.{kind}"
            shutil.copy(self.paths[kind][0], copy)

    def replace(self, pictures, index):
        """Put states of the same shape in their place."""
        for path in [*self.paths["rows"], *self.paths["sums"]]:
            path.unlink()
        given = self.files.folder, self.files.format, index
        files = states.StateFiles(*given, self.files._damaged)
        shape = len(pictures), *self.files.format.shape
        values = np.random.default_rng(0).normal(size=shape)
        files.add(pictures, values.astype("float32"))

    def of_another_model(self):
        self.replace(self.pictures, b"another index")

    def of_other_pictures(self):
        self.replace(["ab" * 32, "cd" * 32], self.files._index)

    def set(self, **values):
        header = json.loads(self.header.read_text()) | values
        kept = {name: x for name, x in header.items() if x != "removed"}
        self.header.write_text(json.dumps(kept))

    def edit_identity(self, edit):
        path = self.files.folder / "states.json"
        path.write_text(edit(path.read_text()))

    def of_another_kind(self):
        self.edit_identity(lambda text: text.replace("float32", "float16"))

    def cut_identity(self):
        self.edit_identity(lambda text: text[:-9])


KINDS = ("rows", "sums")
CHANGES = [
    *(("flip", x, kind) for x in (0, 0.2, 0.45, 1) for kind in KINDS),
    *(
        (name, *kinds)
        for name in ("swap_segments", "swap_pictures", "erase", "remove")
        for kinds in ((KINDS[0],), (KINDS[1],), KINDS)
    ),
    *(
        (name, size, *kinds)
        for name in ("cut", "extend")
        for size in (1, None, 10**7)
        for kinds in ((KINDS[0],), (KINDS[1],))
    ),
    *(("make_folder", kind) for kind in KINDS),
    *(("cut", None, *KINDS), ("swap_tokens",), ("copy", *KINDS)),
    *(("of_another_model",), ("of_other_pictures",)),
    *(("of_another_kind",), ("cut_identity",)),
]
VALUES = {
    "states": ("float16", [1], "removed"),
    "image_size": (32, "removed"),
    "sum": ("00", 7),
}


def test_changed_states_are_named_or_as_written(
    matching, photos, lance_name, tmp_path
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float32", batch_size=4, save_every=4)
    assert files_of(search).format.shape == (65, 2 * 64)
    paths = [str(path) for path in sorted(photos.rglob("*_0.png"))]
    scores = matching.retrieval.score(paths, TEXT)
    expected = dict(zip(paths, scores, strict=True))
    changes = [(change, {}) for change in CHANGES]
    for name, values in VALUES.items():
        changes += [(("set",), {name: value}) for value in values]
    place, errors, others = tmp_path / "changed", [], []

    def query():
        search = PictureSearch(place, matching)
        hits = search.query(TEXT, top_k=100, rerank=100)
        found = {hit.path: hit.match for hit in hits if hit.match is not None}
        right = {path: expected[path] for path in found}
        assert found == pytest.approx(right, abs=1e-5)

    calls = {
        "rerank": query,
        "info": lambda: kbt.search.info(place),
        "prune": lambda: kbt.search.prune(place),
    }
    for (change, *given), values in changes:
        shutil.copytree(lance_name, place)
        index = Index(PictureSearch(place, matching))
        getattr(index, change)(*given, **values)
        for call in calls.values():
            try:
                call()
            except StoreError as error:
                errors.append(str(error))
            except (Exception, AssertionError) as error:
                others.append((values, repr(error)))
        shutil.rmtree(place)
    assert len(errors) > 40
    assert all(str(place) in error for error in errors)
    # An index of another model.
    for values, error in others:
        assert values.keys() & {*VALUES}, error
        assert error.startswith('ValueError("`store` must')
