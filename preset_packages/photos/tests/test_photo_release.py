"""The package of the photo presets, written from a made run."""

import csv
import json

import pytest
from builders import FASTEST
from builders import randomise
from builders import shallow
from every_task import make
from keras_bridgetower_drawings.training.emoji.model import Together
from keras_bridgetower_photos.training import credits
from keras_bridgetower_photos.training import release
from keras_bridgetower_photos.training import things

import keras_bridgetower as kbt
from keras_bridgetower.presets.folder import PresetFolder

pytestmark = FASTEST
TEXTS = ["is it red?", "is it blue?"]
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
    release.describe(package, rows, record, SHOWN, cores=2)
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
        kbt.BridgeTowerContrastive.from_preset(path).embed(texts=TEXTS)
        for path in (package.parent / "trained", folder)
    )
    same = (full * small).sum(1)
    assert ((same > 0.98) & (same < 1 - 1e-7)).all(), same


def test_a_search_reranks_where_that_improves_all_lists(stored):
    _, package, _ = stored
    rows = json.loads((package / "table.json").read_text())
    assert {row["reranks"] for row in rows.values()} == {False}
    for gains, improves in (((0.1, 0.02), True), ((0.1, -0.01), False)):
        lists = {
            f"{i}, re-ranked": {"nDCG@10": {"difference": gain}}
            for i, gain in enumerate(gains)
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
