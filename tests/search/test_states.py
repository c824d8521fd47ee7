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
    sums = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in gone)
    opened, there = files.read(sums)
    assert all(there)
    before = opened[:]
    for path in gone:
        path.unlink()
    kbt.search.prune(search.store)
    left = sums_of(search)
    assert files.sums() == left
    kept = b"".join(p.read_bytes() for p in files.folder.glob("*.rows"))
    assert files.read(sums)[1] == [sum in left for sum in sums]
    for sum, values in zip(sums, before.astype("float16"), strict=True):
        assert (values.tobytes()[:64] in kept) is (sum in left)
    # Whoever has opened them reads them as they were written.
    assert np.array_equal(opened[:], before)
    found = ranked(search)
    assert found == pytest.approx({p: expected[p] for p in found}, abs=1e-5)
    kbt.search.remove(search.store, photos)
    assert [x.name for x in files.folder.iterdir()] == ["states.json"]


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


KINDS = ("rows", "sums")


def flipped(place):
    def edit(data, size):
        at = int(place * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    return edit


# Of the bytes of a file, and those of one of its pictures.
EDITS = (
    *map(flipped, (0, 0.45, 1)),
    # Two pictures change places, or one is erased.
    lambda data, size: data[size : 2 * size] + data[:size] + data[2 * size :],
    lambda data, size: bytes(size) + data[size:],
    lambda data, size: data[:-1],
    lambda data, size: data[:-size],
    lambda data, size: b"",
    lambda data, size: data + data[:1],
    lambda data, size: data + data[:size],
    lambda data, size: 2 * data,
)
VALUES = {
    "states": ("float16", [1], "removed"),
    "image_size": (32, "removed"),
    "sum": ("00", 7),
}


class Index:
    """An index that is damaged on purpose: a segment has four pictures."""

    def __init__(self, search):
        self.files, self.pictures = files_of(search), sorted(sums_of(search))
        self.folder, self.store = self.files.folder, search.store.folder
        self.sizes = {"rows": self.files.format.row_bytes, "sums": 64}
        largest = max(
            self.folder.glob("*.sums"), key=lambda path: path.stat().st_size
        )
        self.paths = {kind: largest.with_suffix(f".{kind}") for kind in KINDS}

    def edit(self, number, *kinds):
        for kind in kinds:
            path, size = self.paths[kind], self.sizes[kind]
            path.write_bytes(EDITS[number](path.read_bytes(), size))

    def remove(self, *kinds):
        for kind in kinds:
            self.paths[kind].unlink()

    def make_folder(self, kind):
        self.remove(kind)
        self.paths[kind].mkdir()

    def of_another_model(self):
        """Put states of the same shape in their place."""
        for path in [
            p for kind in KINDS for p in self.folder.glob(f"*.{kind}")
        ]:
            path.unlink()
        given = self.folder, self.files.format, b"other", self.files._damaged
        shape = len(self.pictures), *self.files.format.shape
        values = np.random.default_rng(0).normal(size=shape)
        states.StateFiles(*given).add(self.pictures, values.astype("float32"))

    def set(self, name, value):
        path = self.store / "search.json"
        header = json.loads(path.read_text()) | {name: value}
        kept = {name: x for name, x in header.items() if x != "removed"}
        path.write_text(json.dumps(kept))

    def edit_identity(self, old, new):
        path = self.folder / "states.json"
        path.write_text(path.read_text().replace(old, new))


CHANGES = [
    *(
        ("edit", number, *kinds)
        for number in range(len(EDITS))
        for kinds in (KINDS[:1], KINDS[1:], KINDS)
    ),
    *(("remove", *kinds) for kinds in (KINDS[:1], KINDS[1:], KINDS)),
    *(("make_folder", kind) for kind in KINDS),
    ("of_another_model",),
    *(("edit_identity", "float32", "float16"), ("edit_identity", "}", "")),
    *(("set", name, value) for name in VALUES for value in VALUES[name]),
]


def test_changed_states_are_named_or_as_written(
    matching, photos, lance_name, tmp_path
):
    search = PictureSearch(lance_name, matching)
    search.index(photos, states="float32", batch_size=4, save_every=4)
    assert files_of(search).format.shape == (65, 2 * 64)
    paths = [str(path) for path in sorted(photos.rglob("*_0.png"))]
    scores = matching.retrieval.score(paths, TEXT)
    expected = dict(zip(paths, scores, strict=True))
    place, errors, others = tmp_path / "changed", [], []

    def rerank():
        search = PictureSearch(place, matching)
        hits = search.query(TEXT, top_k=100, rerank=100)
        found = {hit.path: hit.match for hit in hits if hit.match is not None}
        right = {path: expected[path] for path in found}
        assert found == pytest.approx(right, abs=1e-5)

    calls = (
        rerank,
        lambda: kbt.search.info(place),
        lambda: kbt.search.prune(place),
    )
    for change, *given in CHANGES:
        shutil.copytree(lance_name, place)
        getattr(Index(PictureSearch(place, matching)), change)(*given)
        for call in calls:
            try:
                call()
            except StoreError as error:
                errors.append(str(error))
            except (Exception, AssertionError) as error:
                others.append((change, *given, repr(error)))
        shutil.rmtree(place)
    assert len(errors) > 40
    assert all(str(place) in error for error in errors)
    # An index of another model.
    for change, *_, error in others:
        assert change == "set", error
        assert error.startswith('ValueError("`store` must')
