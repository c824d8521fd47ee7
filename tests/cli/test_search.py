"""The commands that index pictures and find them."""

import io
import json
import shutil
from contextlib import redirect_stderr
from contextlib import redirect_stdout

import pytest
from builders import FASTEST
from drawn_photos import draw

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.search import PictureSearch

pytestmark = [FASTEST, pytest.mark.usefixtures("opened_once")]
KNOWN = "bridgetower_tiny_easy_retrieval"
FAILED, WRONG_USAGE = 1, 2
TEXT = "a medium red circle in the center."


@pytest.fixture(autouse=True)
def store_package():
    pytest.importorskip("lancedb", reason="the extra `search`")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture(scope="module")
def indexed(photos, tmp_path_factory):
    """An index that the command made, and what it printed."""
    store = tmp_path_factory.mktemp("stores") / "photos.index"
    words = ["search", "index", str(photos), "--store", str(store)]
    words += ["--preset", KNOWN]
    printed, warned = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(warned):
        assert main.main(words) == 0
    return store, printed.getvalue(), warned.getvalue()


def test_index_reports_skipped_files(indexed, photos, run):
    store, printed, warned = indexed
    counts = dict(line.split("\t") for line in printed.splitlines())
    wanted = dict(pictures=11, embedded=10, unchanged=0, copied=0, removed=0)
    wanted |= {"unreadable": 1, ".txt": 1}
    assert counts == {name: str(count) for name, count in wanted.items()}
    assert warned.startswith("warning: broken.png is left out: ")
    assert warned.count("\n") == 1
    # Again: without `--preset` by that of the index.
    again = run("search", "index", photos, "--store", store, "--json").out
    again = json.loads(again)
    assert (again["embedded"], again["unchanged"]) == (0, 10)
    assert again["index"] == str(store) and again["store"] == "lancedb"
    [bad] = again["unreadable"]
    assert bad["path"] == "broken.png" and "readable image" in bad["error"]
    found = json.loads(run("search", "info", "--store", store, "--json").out)
    assert found["index"] == str(store) and found["store"] == "lancedb"
    assert found["preset"] == KNOWN and found["pictures"] == 10


def test_query_equals_the_library(indexed, photos, run):
    store, _, _ = indexed
    wanted = PictureSearch(store, KNOWN).query(TEXT, top_k=3, rerank=128)
    words = ("search", "query", TEXT, "--store", store, "--top-k", 3)
    assert "`--rerank 128` uses it anyway" in run(*words).err
    words += ("--rerank", 128)
    found = json.loads(run(*words, "--json").out)
    # As `search index` and `search info` call them.
    assert found["index"] == str(store) and found["store"] == "lancedb"
    for hit, one in zip(found["hits"], wanted, strict=True):
        assert hit["path"] == one.path
        assert hit["match"] == pytest.approx(one.match, abs=1e-4)
        assert hit["similarity"] == pytest.approx(one.similarity, abs=1e-5)
    lines = [line.split("\t") for line in run(*words).out.splitlines()]
    assert [line[0] for line in lines] == [hit.path for hit in wanted]
    assert float(lines[0][1]) == pytest.approx(wanted[0].match, abs=1e-4)
    # By both, without the matching head.
    red = photos / "ellipse/red_0.png"
    words = ("search", "query", TEXT, "--image", red, "--store", store)
    first = run(*words, "--rerank", 0, "--top-k", 1).out.split("\t")
    assert first[0] == str(red) and first[1] == ""


def test_gone_and_unreadable_files_and_prune(photos, tmp_path, run):
    mine, store = tmp_path / "mine", tmp_path / "index"
    shutil.copytree(photos, mine)
    run("search", "index", mine, "--store", store, "--preset", KNOWN)
    said = run("search", "remove", mine / "rectangle", "--store", store).out
    assert said == "removed\t5\npictures\t5\n"
    gone, bad = mine / "ellipse/red_0.png", mine / "ellipse/blue_0.png"
    gone.unlink()
    bad.write_bytes(b"no picture")
    said = run("search", "query", TEXT, "--store", store, "--rerank", 9)
    assert len(said.out.splitlines()) == 4
    first, second = said.err.splitlines()
    assert f"1, such as {str(gone)!r}" in first
    assert second.startswith(f"warning: {bad} was not ranked")
    words = ("search", "prune", "--store", store, "--json")
    assert json.loads(run(*words, tmp_path / "other").out)["removed"] == 0
    found = json.loads(run(*words, mine).out)
    wanted = dict(index=str(store), store="lancedb", removed=1, pictures=4)
    assert found == wanted | {"paths": [str(gone)]}


REFUSED = [
    (WRONG_USAGE, "Give TEXT or `--image`", "query", "--store", "STORE"),
    (FAILED, "contrastive head", "index", "PHOTOS", "--store", "TMP/new")
    + ("--preset", "bridgetower_tiny_easy_vqa"),
    # Another model, whose images are as large and vectors as long.
    (FAILED, f"Open it with the preset {KNOWN!r}", "query", TEXT)
    + ("--store", "STORE", "--preset", "bridgetower_tiny_easy_pretrain"),
]


@pytest.mark.parametrize("row", REFUSED)
def test_refusals(row, run, indexed, photos, tmp_path):
    code, told, *words = row
    places = {"STORE": indexed[0], "PHOTOS": photos, "TMP": tmp_path}
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    said = run("search", *words, code=code)
    assert said.out == "" and said.err.count("\n") == 1 and told in said.err
    assert not (tmp_path / "new").exists()
