"""Reading of files: strict JSON in every reader, and paths inside a folder."""

import ast
import os
import pathlib
import time
import types

import pytest
from builders import FASTEST

import keras_bridgetower
from keras_bridgetower import files
from keras_bridgetower.apps.search.stores.store import HEADER
from keras_bridgetower.apps.search.stores.store import FolderStore
from keras_bridgetower.convert import by_hand as answers
from keras_bridgetower.convert import tensors
from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.files import read_json
from keras_bridgetower.metrics import vqa
from keras_bridgetower.preprocessing import tokenizer as tokenizer_files
from keras_bridgetower.presets import safe_files
from keras_bridgetower.tasks import ranking
from keras_bridgetower.training.runs import folders

pytestmark = FASTEST
PACKAGE = pathlib.Path(keras_bridgetower.__file__).parent


def _search(path):
    path.rename(path.parent / HEADER)
    store = types.SimpleNamespace(folder=path.parent)
    return FolderStore.header(store)


def _run(path):
    path.rename(path.parent / folders.MANIFEST)
    return folders.read_facts(path.parent)


def _records(path):
    path.rename(path.parent / "index.json")
    return read_index(path.parent)


# What reads a JSON file, whoever wrote it.
READERS = {
    "preset": lambda path: safe_files.read_json(path, path.parent),
    "vocabulary": tokenizer_files.read_vocabulary,
    "transformers": tensors.read_json,
    "answers": answers.read_answers,
    "annotations of VQA": vqa.load_json,
    "ranking": lambda path: ranking._read(path, read_json),
    "records": _records,
    "run": _run,
    "search": _search,
}
BAD = {
    "a key twice": ('{"a": 1, "a": 1}', "key 'a' occurs twice"),
    "a key twice within": ('{"a": [{"b": 1, "b": 2}]}', "key 'b' occurs twice"),
    "deep": ('{"a": ' * 50_000, "nested deeper than 100"),
    "too deep to copy": (f"{'[' * 101}1{']' * 101}", "nested deeper than 100"),
    "half": ('{"a": ', ""),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_bad_json_is_rejected_by_every_reader(reader, name, tmp_path):
    content, told = BAD[name]
    path = tmp_path / "file.json"
    path.write_text(content)
    start = time.process_time()
    with pytest.raises(ValueError) as caught:
        READERS[reader](path)
    assert told in str(caught.value) + str(caught.value.__cause__)
    assert time.process_time() - start < 2


# Lists of tokens, one in a line.
LISTS = {
    "merges": tokenizer_files.read_merges,
    "words": tokenizer_files.read_words,
}


@pytest.mark.parametrize("reader", [*READERS, *LISTS])
def test_files_with_holes_are_not_read_whole(reader, tmp_path):
    path = tmp_path / "file.json"
    path.write_text("a b\n" if reader in LISTS else '{"a": "')
    os.truncate(path, 20 * 2**30)
    start = time.process_time()
    with pytest.raises(ValueError):
        (READERS | LISTS)[reader](path)
    assert time.process_time() - start < 2


# Texts that this process, or one that it started, has just written itself; and
# files that another library reads in the same way.
OWN_TEXTS = """
    apps/cli/frameworks.py apps/serve/decoders.py data/records/write.py
    distribution/on_tensorflow.py distribution/on_torch.py
    distribution/process_seeds.py distribution/same_order.py
    distribution/strategy.py models/exporting/runtime.py presets/registry.py
    tasks/keep_states.py training/evaluate.py training/runs/checks.py
    files.py
""".split()


def test_json_is_parsed_in_one_place():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                *("json.load", "json.loads", "json.JSONDecoder"),
            ):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(OWN_TEXTS)


def test_constants_that_json_lacks():
    assert files.parse_json("[NaN, 1]")[1] == 1
    assert files.parse_json("1e999") == float("inf")
    assert files.parse_json("[1.5e3]", nan=False) == [1500.0]
    for text in ("NaN", "[-Infinity]", '{"a": Infinity}', "[-1e999]"):
        with pytest.raises(ValueError, match="is not a number in JSON"):
            files.parse_json(text, nan=False)


@pytest.fixture
def tree(tmp_path):
    """A folder with links that stay in it and links that leave it."""
    inside, outside = tmp_path / "root", tmp_path / "other"
    for folder in (inside / "sub", outside / "deep"):
        folder.mkdir(parents=True)
    for path in (inside / "a", inside / "sub/b", tmp_path / "c", outside / "d"):
        path.touch()
    (inside / "out").symlink_to(outside / "deep")
    (inside / "away").symlink_to(tmp_path / "c")
    (inside / "near").symlink_to("sub/b")
    (inside / "within").symlink_to("sub")
    (inside / "twice").symlink_to("out")
    (tmp_path / "alias").symlink_to("root")
    return inside


@pytest.mark.parametrize(
    "name, leads_out",
    [
        *(("a", False), ("sub/b", False), ("near", False), ("within/b", False)),
        *(("sub/../a", False), ("missing", False), ("missing/../a", False)),
        *(("../c", True), ("sub/../../c", True), ("/etc/hostname", True)),
        *(("away", True), ("out/d", True), ("twice/d", True), ("..", True)),
        # The name alone stays inside, but the system follows the link first.
        *(("out/../d", True), ("out/..", True), ("within/../a", False)),
    ],
)
def test_paths_and_links_that_lead_out_are_found(name, leads_out, tree):
    for folder in (tree, tree.parent / "alias"):
        assert files.Below(folder).leads_out(name) == leads_out
        if name[0] != "/":
            assert files.Below(folder).leads_out(folder / name) == leads_out


def test_links_to_the_blobs_of_a_hub_cache_stay_inside(tmp_path):
    snapshot = tmp_path / "datasets--a--b/snapshots/main/images"
    blob, secret = tmp_path / "datasets--a--b/blobs/1", tmp_path / "secret"
    snapshot.mkdir(parents=True)
    blob.parent.mkdir()
    for path, target in (("a.jpg", blob), ("b.jpg", secret)):
        target.touch()
        (snapshot / path).symlink_to(target)
    for folder in (snapshot, snapshot.parent):
        below = files.Below(folder)
        assert not below.leads_out(snapshot / "a.jpg")
        assert below.leads_out(snapshot / "b.jpg")


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="no such kernel")
def test_files_of_the_kernel_are_rejected():
    with pytest.raises(ValueError, match="must be a plain file"):
        files.open_regular("/proc/self/status")
