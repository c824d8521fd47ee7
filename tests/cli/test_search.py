"""The commands that index pictures and find them."""

import io
import json
import pathlib
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from contextlib import redirect_stdout

import pytest
from builders import FASTEST
from drawn_photos import draw

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.search import PictureSearch

pytestmark = FASTEST
KNOWN = "bridgetower_tiny_easy_retrieval"
FAILED, WRONG_USAGE = 1, 2
TEXT = "a medium red circle in the center."


@pytest.fixture(autouse=True)
def store_package():
    pytest.importorskip("lancedb", reason="the extra `search`")


@pytest.fixture
def fails(run):
    """The one line that a command says when it fails."""

    def fails(*words, code=FAILED):
        said = run("search", *words, code=code)
        assert said.out == "" and said.err.count("\n") == 1
        return said.err

    return fails


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
    assert counts == {
        "pictures": "11",
        "embedded": "10",
        "unchanged": "0",
        "copied": "0",
        "removed": "0",
        "unreadable": "1",
        ".txt": "1",
    }
    assert warned.startswith("warning: broken.png is left out: ")
    assert warned.count("\n") == 1
    # Again: without `--preset` by that of the index.
    again = run("search", "index", photos, "--store", store, "--json").out
    assert again.count("\n") == 1
    again = json.loads(again)
    assert (again["embedded"], again["unchanged"]) == (0, 10)
    assert again["index"] == str(store) and again["store"] == "lancedb"
    [bad] = again["unreadable"]
    assert bad["path"] == "broken.png" and "readable image" in bad["error"]


def test_query_equals_the_library(indexed, photos, run):
    store, _, _ = indexed
    search = PictureSearch(store, KNOWN)
    wanted = search.query(TEXT, top_k=3)
    words = ("search", "query", TEXT, "--store", store, "--top-k", 3)
    found = json.loads(run(*words, "--json").out)
    # As `search index` and `search info` call them.
    assert found["index"] == str(store) and found["store"] == "lancedb"
    found = found["hits"]
    assert [hit["path"] for hit in found] == [hit.path for hit in wanted]
    for hit, one in zip(found, wanted, strict=True):
        assert hit["match"] == pytest.approx(one.match, abs=1e-4)
        assert hit["similarity"] == pytest.approx(one.similarity, abs=1e-5)
    lines = [line.split("\t") for line in run(*words).out.splitlines()]
    assert [line[0] for line in lines] == [hit.path for hit in wanted]
    assert float(lines[0][1]) == pytest.approx(wanted[0].match, abs=1e-4)

    # By a picture: itself first, and no matching head.
    red = photos / "ellipse/red_0.png"
    words = ("search", "query", "--image", red, "--store", store)
    found = json.loads(run(*words, "--json").out)
    first, *rest = found["hits"]
    assert first["path"] == str(red) and len(rest) == 9
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["match"] is None
    # By both, without the matching head.
    words = ("search", "query", TEXT, "--image", red, "--store", store)
    first = run(*words, "--rerank", 0, "--top-k", 1).out.split("\t")
    assert first[0] == str(red) and first[1] == ""


def test_query_warns_of_gone_and_unreadable_files(photos, tmp_path, run):
    mine, store = tmp_path / "mine", tmp_path / "index"
    shutil.copytree(photos / "ellipse", mine)
    run("search", "index", mine, "--store", store, "--preset", KNOWN)
    (mine / "red_0.png").unlink()
    said = run("search", "query", TEXT, "--store", store)
    assert len(said.out.splitlines()) == 4
    assert str(mine / "red_0.png") not in said.out
    assert said.err.startswith("warning: Pictures were left out because")
    assert f"1, such as {str(mine / 'red_0.png')!r}" in said.err
    assert said.err.count("\n") == 1
    (mine / "blue_0.png").write_bytes(b"no picture")
    said = run("search", "query", TEXT, "--store", store).err
    assert f"warning: {mine / 'blue_0.png'} was not ranked" in said


def test_remove_and_prune(fails, photos, tmp_path, run):
    mine, store = tmp_path / "mine", tmp_path / "index"
    shutil.copytree(photos, mine)
    run("search", "index", mine, "--store", store, "--preset", KNOWN)
    said = run("search", "remove", mine / "ellipse", "--store", store).out
    assert said == "removed\t5\npictures\t5\n"
    said = fails("remove", mine / "ellipse", "--store", store)
    assert "`path` must be a picture, a folder or a table" in said
    shutil.rmtree(mine)
    said = fails("index", mine, "--store", store)
    assert "has 5 pictures of this source" in said and "`prune`" in said
    words = ("search", "prune", "--store", store, "--json")
    assert json.loads(run(*words, tmp_path / "other").out)["removed"] == 0
    found = json.loads(run(*words, mine).out)
    paths = found.pop("paths")
    assert paths == sorted(str(p) for p in paths) and len(paths) == 5
    assert paths[0] == str(mine / "rectangle/black_0.png")
    assert found == {
        "index": str(store),
        "store": "lancedb",
        "removed": 5,
        "pictures": 0,
    }


def test_info_needs_no_model(indexed):
    store, _, _ = indexed
    code = """
import sys
sys.argv = ["/usr/bin/keras-bridgetower"]
from keras_bridgetower.apps.cli.main import main
code = main(["search", "info", "--store", sys.stdin.read(), "--json"])
heavy = {"keras", "tensorflow", "torch", "jax"} & set(sys.modules)
sys.exit(repr(heavy) if heavy else code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=str(store),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["index"] == str(store) and found["store"] == "lancedb"
    assert found["preset"] == KNOWN and found["pictures"] == 10
    assert found["whole"] is True and found["vectors"] == "image"


QUERY = ("query", TEXT, "--store", "STORE")
NEW = ("--store", "TMP/new")
# Another model, whose images are as large and vectors as long.
OTHER = ("--preset", "bridgetower_tiny_easy_pretrain")
REFUSED = [
    (WRONG_USAGE, "Give TEXT or `--image`", "query", "--store", "STORE"),
    (WRONG_USAGE, "Missing option '--store'", "query", TEXT),
    (WRONG_USAGE, "Did you mean bridgetower_tiny_easy_retrieval", "index")
    + ("PHOTOS", *NEW, "--preset", "tiny_easy_retrieval"),
    (WRONG_USAGE, "this command needs itc", "index", "PHOTOS", *NEW)
    + ("--preset", "bridgetower_tiny_easy_vqa"),
    (WRONG_USAGE, "no preset 'bridgetower'", *QUERY, "--preset", "bridgetower"),
    (WRONG_USAGE, "--rerank", *QUERY, "--rerank", -1),
    (WRONG_USAGE, "A picture must be a file", *QUERY, "--image", "PHOTOS"),
    (FAILED, "at least one row", "index", "TMP/empty", *NEW),
    (FAILED, "must be a folder, or a file", "index", "TMP/nowhere", *NEW),
    (FAILED, "Make one first, with `index`", "query", TEXT, *NEW),
    (FAILED, "Make one first, with `index`", "info", *NEW),
    (FAILED, "contains something else", "query", TEXT, "--store", "PHOTOS"),
    (FAILED, "contains something else", "info", "--store", "PHOTOS"),
    (FAILED, f"Open it with the preset {KNOWN!r}", *QUERY, *OTHER),
    (FAILED, "an index of the same model", "index", "PHOTOS")
    + ("--store", "STORE", *OTHER),
    (FAILED, "`text` must not be empty", "query", " ", *QUERY[2:]),
    (FAILED, "sequence_length=16", "query", TEXT * 20, *QUERY[2:]),
    (FAILED, "column", "index", "PHOTOS", "--store", "STORE", "--fused"),
]


@pytest.mark.parametrize("row", REFUSED)
def test_refusals(row, fails, indexed, photos, tmp_path):
    code, told, *words = row
    (tmp_path / "empty").mkdir()
    places = {"STORE": indexed[0], "PHOTOS": photos, "TMP": tmp_path}
    words = list(map(str, words))
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    assert told in fails(*words, code=code)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [("query", TEXT), ("info",), ("index", ".")])
def test_without_lancedb(words, fails, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    said = fails(*words, "--store", tmp_path / "new")
    assert "pip install 'keras-bridgetower[search]'" in said


def test_interrupted_index(fails, indexed, tmp_path):
    store, _, _ = indexed
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    header = pathlib.Path(copy, "search.json")
    said = json.loads(header.read_text())
    header.write_text(json.dumps({**said, "whole": False}))
    said = fails("query", TEXT, "--store", copy)
    assert "Run `index` with its pictures again" in said
    assert "has 10 pictures so far" in said
    header.write_text("{")
    for words in (("query", TEXT), ("info",)):
        assert "whose file is damaged" in fails(*words, "--store", copy)
