"""Test that foreign, incomplete and missing indexes are rejected."""

import json
import pathlib
import sys

import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.search import PictureSearch
from keras_bridgetower.apps.search import SearchModels
from keras_bridgetower.apps.search import info

pytestmark = FASTEST


def rejected(message, *calls):
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_an_index_remembers_its_reading_and_dtype(
    matching, photos, tmp_path, lance_name
):
    """Its preset alone says how much of a picture is cut off, as DINOv2's."""
    task = kbt.BridgeTowerContrastive.from_preset(matching.preset)
    converter = task.preprocessor.image_converter
    values = {"crop_pct": 0.5, "resample": "bilinear"}
    task.preprocessor.image_converter = type(converter).from_config(
        converter.get_config() | values
    )
    preset = str(tmp_path / "preset")
    task.save_to_preset(preset)
    narrow = SearchModels.from_preset(preset, dtype="bfloat16")
    first = PictureSearch(lance_name, narrow)
    first.index(photos)
    hits = first.query("a red circle", top_k=3)
    assert info(lance_name)["dtype"] == "bfloat16"
    for name in (None, preset):
        again = PictureSearch(lance_name, name)
        assert again.query("a red circle", top_k=3) == hits
    crop = SearchModels.from_preset(preset, image_mode="crop")
    rejected(
        r"'image_mode': \('squash', 'crop'\)",
        lambda: PictureSearch(lance_name, crop).query("a circle"),
        lambda: PictureSearch(lance_name, crop).index(photos),
    )


def test_incomplete_index_is_rejected_and_resumes(matching, photos, store_name):
    def stop(progress):
        if progress.done >= 8:
            raise KeyboardInterrupt

    search = PictureSearch(store_name, matching)
    with pytest.raises(KeyboardInterrupt):
        search.index(photos, batch_size=2, save_every=2, progress=stop)
    so_far = search.store.count()
    assert 0 < so_far < 10
    rejected(f"has {so_far} pictures", lambda: search.query("a circle"))
    assert info(search.store)["whole"] is False
    report = search.index(photos)
    assert (report.embedded, report.unchanged) == (10 - so_far, so_far)
    hits = search.query("a circle", rerank=0)
    vectors = matching.contrastive.embed(images=[hit.path for hit in hits])
    near = vectors @ matching.embed_query("a circle")
    assert [hit.similarity for hit in hits] == pytest.approx(near, abs=1e-5)
    assert len({hit.path for hit in hits}) == 10
    search.close()


def test_missing_and_foreign_stores(matching, photos, lance_name, tmp_path):
    new = tmp_path / "new"
    rejected(
        "Make one first, with `index`",
        lambda: PictureSearch(new, matching).query("a circle"),
        lambda: info(new),
        lambda: kbt.search.prune(new),
    )
    assert not new.exists()
    rejected(
        "new or empty folder",
        lambda: PictureSearch(photos, matching).index(photos),
    )


def test_damaged_headers_are_refused(matching, lance_name, lance):
    path = pathlib.Path(lance_name, "search.json")
    whole = path.read_text()
    header = json.loads(whole)
    lost = [header | {"format": 9}]
    for name in ("whole", "sum"):
        lost.append({k: v for k, v in header.items() if k != name})
    for text, message in (
        (whole[:40], "a readable search.json"),
        ("[]", "a complete header"),
        (json.dumps(header | {"sum": "0"}), "an index of the same model"),
        *((json.dumps(found), "a complete header") for found in lost),
    ):
        path.write_text(text)
        again = PictureSearch(lance_name, matching)
        rejected(message, lambda again=again: again.query("a"))


DAMAGES = {
    "lancedb": (("*.manifest", "cut"), ("data/*.lance", "cut")),
    "qdrant": (("*.sqlite", "cut"), ("meta.json", "deleted")),
}


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_files_are_one_error(
    matching, photos, search, store_name, number
):
    """LanceDB panics with paths of its source code."""
    search.close()
    folder = search.store.folder
    files, damage = DAMAGES[search.store.kind][number]
    found = list(folder.rglob(files))
    assert found
    for path in found:
        data = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(data[: len(data) // 2])
    for call in (
        lambda: PictureSearch(store_name, matching).query("a circle"),
        lambda: PictureSearch(store_name, matching).index(photos),
        lambda: kbt.search.prune(store_name),
    ):
        with pytest.raises(ValueError, match="^`store` must have") as error:
            call()
        assert f"store={str(folder)!r}, which failed with" in str(error.value)
        assert ".rs" not in str(error.value)


# Of a client that cannot be opened, Qdrant leaves a file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_process_writes_at_a_time(matching, photos, search, store_name):
    with search.store.writing():
        other = PictureSearch(store_name, matching)
        assert search.query("a circle", top_k=1)
        if search.store.kind == "qdrant":
            # Nor reads.
            rejected("open in one process", lambda: other.query("a circle"))
        else:
            rejected("one process at a time", lambda: other.index(photos))


def test_missing_packages_and_unreachable_servers_are_named(
    matching, monkeypatch
):
    pytest.importorskip("qdrant_client", reason="the extra `search`")
    address = "http://127.0.0.1:9"
    server = PictureSearch(address, matching)
    rejected(f"store='{address}'", lambda: server.query("a circle"))
    for package, name in (("lancedb", "a"), ("qdrant_client", "qdrant:a")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=r"keras-bridgetower\[search\]"):
            PictureSearch(name)
