"""Test the distribution of the photo presets, written and installed."""

import csv
import json
import pathlib
import re
import shutil
import zlib

import pytest
from builders import FASTEST
from builders import long_but
from builders import randomise
from builders import shallow
from every_task import make
from exported_files import check_shipped
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_photos.training import credits
from keras_bridgetower_photos.training import release
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker import release as reranker
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.presets import table
from keras_bridgetower.presets import verbs
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
SHIPPED = {
    "vqa": ("answer", {"images": PICTURES, "questions": TEXTS, "top_k": 5}),
    "retrieval": ("score", {"images": PICTURES, "texts": TEXTS}),
    "contrastive": ("embed", {"images": PICTURES}, {"texts": TEXTS}),
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("task", SHIPPED)
def test_what_is_shipped_without_keras_equals_it(task):
    check_shipped(release.FAMILY + task, *SHIPPED[task])


def test_the_trained_package_is_whole():
    rows = json.loads((PACKAGE / "table.json").read_text())
    family = {release.FAMILY + suffix for suffix in release.PRESETS}
    scenes = {reranker.NAME, reranker.VECTORS, reranker.JUDGES}
    assert set(rows) == family | scenes
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
def test_captions_of_scenes_are_judged_by_the_photo_presets(monkeypatch):
    monkeypatch.setattr(table, "FAMILIES", (release.FAMILY,))
    assert table.shipped_with(verbs.ENTAIL.heads)[0] == reranker.JUDGES
    scene = Image.new("RGB", (400, 200))
    for left, path in zip((0, 200), PICTURES, strict=True):
        scene.paste(Image.open(path).resize((200, 200)), (left, 0))
    task = kbt.BridgeTowerEntailment.from_preset(reranker.JUDGES)
    texts = ["the cat is left of the cup", "the cup is left of the cat"]
    found = [label for label, _ in task.entail(scene, texts)]
    assert found == ["entailment", "contradiction"]


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


QUESTIONS = ["is it red?", "is it blue?"]
SHOWN = [
    ("train", "one", "p", "GPL-3", "Ann", "", "picture", ""),
    ("test", "two", "p", "GFDL-NIV-1.2", "Bob", "", "picture", ""),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The tasks of a made preset, the folder that was stored, and rows."""
    folder = tmp_path_factory.mktemp("run")
    body = randomise(shallow(), scale=0.05)
    tasks = [make(name, body) for name in ("vqa", "pretraining")]
    for task in tasks:
        for name in task.heads:
            randomise(task.heads[name], scale=0.05)
    Together(*tasks).save_to_preset(folder / "trained")
    package = folder / release.PACKAGE
    rows = release.store(folder / "trained", package / release.FOLDER)
    record = {
        "fusion": {"seconds": 7200, "backend": "jax", "seed": 3},
        "scores_test": {"vqa": {"all": 75.5, "blind": 40.0}, "pictures": 9},
    }
    release.describe(package, rows, record, SHOWN)
    return tasks, package, rows


def test_each_task_is_nearly_the_one_before(stored):
    (vqa, pairs), package, rows = stored
    folder = package / release.FOLDER
    for row in rows.values():
        task = getattr(kbt, row["tasks"][0]).from_preset(folder)
        names = set(row["heads"])
        assert set(task.heads) == names
        for name in names:
            head = (vqa if name == "vqa" else pairs).heads[name]
            for old, new in zip(
                head.weights, task.heads[name].weights, strict=True
            ):
                assert new.dtype == "float32"
                assert abs(old - new).max() <= 2**-5 * abs(old).max()
            assert row["parameters"] > head.count_params()
    full, small = (
        kbt.BridgeTowerContrastive.from_preset(path).embed(texts=QUESTIONS)
        for path in (package.parent / "trained", folder)
    )
    same = (full * small).sum(1)
    assert ((same > 0.98) & (same < 1 - 1e-7)).all(), same


def test_a_search_reranks_where_that_improves_all_lists(stored):
    _, package, _ = stored
    rows = json.loads((package / "table.json").read_text())
    assert {row["reranks"] for row in rows.values()} == {False}
    for lows, improves in (((0.1, 0.02), True), ((0.1, -0.01), False)):
        gains = [
            {"difference": 0.2, "95 % interval": f"{low:.3f} to 0.300"}
            for low in lows
        ]
        lists = {
            f"{i}, re-ranked": {"nDCG@10": gain} for i, gain in enumerate(gains)
        }
        lists = {"search": {"named": {"R@1": 3.0}, **lists, "pictures": 9}}
        found = release.reranking({"scores_validation": lists})
        assert found["reranks"] is improves


def test_the_card_and_the_tables(stored):
    _, package, rows = stored
    PresetFolder(package / release.FOLDER).finish_check()
    assert release.table_of(release.opened(package / release.FOLDER)) == rows
    assert json.loads((package / "table.json").read_text()).keys() == set(rows)
    card = (package / release.FOLDER / "README.md").read_text()
    for told in ("* all: 75.5\n* blind: 40.0", "* GPL-3: 1 pictures"):
        assert told in card
    with (package / "pictures.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [one["authors"] for one in listed] == ["Ann", "Bob"]


def test_a_license_that_does_not_fit_is_refused(monkeypatch):
    class One:
        id, split = "kangaroo", "validation"

    world = things.World((One,), ())
    credit = credits.Credit("kangaroo", *SHOWN[1][2:])
    monkeypatch.setattr(things, "load", lambda folders: world)
    monkeypatch.setattr(credits, "credits", lambda folders: [credit])
    assert release.pictures({}) == [("validation", *credit)]
    One.split = "train"
    with pytest.raises(ValueError, match="kangaroo is under GFDL-NIV-1.2"):
        release.pictures({})
