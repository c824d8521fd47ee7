"""The distribution with the photo presets, as it is installed."""

import csv
import json
import pathlib
import re
import shutil
import zlib

import pytest
from builders import FASTEST
from builders import long_but
from exported_files import check_shipped
from keras_bridgetower_photos.training import release
from keras_bridgetower_photos.training.reranker import release as reranker

import keras_bridgetower as kbt
from keras_bridgetower.presets import table
from keras_bridgetower.presets.folder import PresetFolder

pytestmark = FASTEST

LIBRARY = pathlib.Path(kbt.__file__).parent
SOURCE = LIBRARY.parent / "preset_packages" / "photos"
PACKAGE = SOURCE / release.PACKAGE
# Pages, and how many of their blocks need the presets at least.
README, GUIDES = ("README.md", 1), ("docs/**/*.md", 3)
WITH_PHOTOS = '^```python title="With the photo presets"\n(.*?)^```$'


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The presets as pip installs them, without a copy of the weights."""
    info = tmp_path / "photos-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: photos\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{table.GROUP}]\nphotos = {release.PACKAGE}\n"
    )
    for folder in (SOURCE, tmp_path):
        monkeypatch.syspath_prepend(folder)
    for name, preset in table.installed().items():
        monkeypatch.setitem(table.PRESETS, name, preset)


PICTURES = [PACKAGE / "examples" / f"{x}.jpg" for x in ("cat", "coffee")]
TEXTS = ["what animal is this?", "a cup of coffee"]
SHIPPED = [
    ("vqa", "answer", {"images": PICTURES, "questions": TEXTS, "top_k": 5}),
    ("retrieval", "score", {"images": PICTURES, "texts": TEXTS}),
    ("contrastive", "embed", {"images": PICTURES}),
    ("contrastive", "embed", {"texts": TEXTS}),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("task, method, given", SHIPPED)
def test_what_is_shipped_without_keras_equals_it(task, method, given):
    check_shipped(release.FAMILY + task, method, **given)


def test_the_trained_package_is_whole():
    rows = json.loads((PACKAGE / "table.json").read_text())
    family = {release.FAMILY + suffix for suffix in release.PRESETS}
    assert set(rows) == family | {reranker.NAME, reranker.VECTORS}
    for folder in (release.FOLDER, reranker.NAME):
        PresetFolder(PACKAGE / folder).finish_check()
    # What a wheel of it has to hold.
    size = sum(
        len(zlib.compress(path.read_bytes(), 1))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert size <= 40_000_000
    with (PACKAGE / "pictures.csv").open(encoding="utf-8") as file:
        pictures = list(csv.DictReader(file))
    assert len(pictures) > 600
    for one in pictures:
        assert one["licence"] and one["authors"]
        assert one["split"] != "train" or one["licence"] in release.ALLOWED


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("case", long_but([README, GUIDES], README))
def test_the_code_of_the_documents_runs_with_the_presets(
    case, tmp_path, monkeypatch
):
    pages, least = case
    matplotlib = pytest.importorskip("matplotlib")
    blocks = []
    for page in LIBRARY.parent.glob(pages):
        blocks += re.findall(WITH_PHOTOS, page.read_text(), re.S | re.M)
    assert len(blocks) >= least
    given = tmp_path / "examples" / "photographs"
    shutil.copytree(LIBRARY.parent / "examples" / "photographs", given)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    exec("\n".join(blocks), {"__name__": "__main__"})


def test_answers_fit_their_questions():
    """What the preset cannot know, it says that it does not know."""
    task = kbt.BridgeTowerVQA.from_preset(PACKAGE / release.FOLDER)
    cat, coffee = PICTURES
    sure = [(cat, "what animal is this?"), (cat, "How many cats are there?")]
    unsure = [
        (cat, "what color are its eyes?"),
        (coffee, "which color is the cup?"),
        (coffee, "where is the spoon?"),
        (coffee, "what is behind the cup?"),
        (cat, "was ist das f\u00fcr ein Tier?"),
        (cat, "qu'est-ce que c'est ?"),
        (coffee, "\u00bfde qu\u00e9 color es la taza?"),
        (cat, "\u3053\u308c\u306f\u4f55\u3067\u3059\u304b"),
        (cat, "who is this?"),
        (cat, "???"),
    ]
    found = task.answer(*map(list, zip(*sure, *unsure, strict=True)), top_k=5)
    assert [one.known for one in found] == [True] * 2 + [False] * 10
    names = [{name for name, _ in one} for one in found]
    assert [one[0][0] for one in found[:2]] == ["cat", "1"]
    for asked in names[2:]:
        assert not asked & {"yes", "no"}
    places = {"left", "middle", "right", "castle", "palace", "house", "wall"}
    assert names[4] & places and "cup" not in names[4] | names[5]
    assert {n for n, _ in task.answer(cat, "is it a dog?", 5)} == {"yes", "no"}
