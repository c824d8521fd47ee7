"""The distribution with the photo presets, built and opened."""

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
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
DRAWINGS = pathlib.Path(table.PRESETS["bridgetower_tiny_emoji_vqa"].root)
SOURCE = LIBRARY.parent / "preset_packages" / "photos"
PACKAGE = SOURCE / release.PACKAGE
# Pages, and how many of their blocks need the presets at least.
README, GUIDES = ("README.md", 1), ("docs/**/*.md", 3)
WITH_PHOTOS = '^```python title="With the photo presets"\n(.*?)^```$'
TRAINED = pytest.mark.skipif(
    not (PACKAGE / release.FOLDER).is_dir(),
    reason="the photo presets are not trained yet: photo_world/release.py",
)
BUILD = """
import sys
from setuptools import build_meta
build_meta.build_wheel(sys.argv[1])
"""
OPEN = """
import socket
def refuse(*args):
    raise OSError("no network")
socket.socket.connect = refuse
import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.demo.models import OFFERED
from keras_bridgetower.presets import table
from keras_bridgetower.presets import verbs
asked = models.DEFAULTS[verbs.ANSWER.name]
print(table.default_family(), table.not_installed(), asked)
print(models.FAMILY)
print(sorted(OFFERED[:5]))
print(*(path.name for path, _ in kbt.first_examples()["ask"]))
task = kbt.BridgeTowerContrastive.from_preset(
    "bridgetower_small_photo_contrastive"
)
print(task.embed(texts="a cat").shape)
"""


@pytest.fixture
def site(tmp_path):
    """A folder with an installed wheel, with emoji weights as a stand-in."""
    pytest.importorskip("setuptools", "77")
    source = shutil.copytree(
        SOURCE,
        tmp_path / "source",
        ignore=lambda *_: ["table.json", release.FOLDER, "build"],
    )
    package = source / release.PACKAGE
    emoji = "bridgetower_tiny_emoji_"
    shutil.copytree(DRAWINGS / f"{emoji}vqa", package / release.FOLDER)
    rows = json.loads((DRAWINGS / "table.json").read_text())
    (package / "table.json").write_text(
        json.dumps(
            {
                name.replace(emoji, release.FAMILY): {
                    **row,
                    "folder": release.FOLDER,
                }
                for name, row in rows.items()
                if name.startswith(emoji)
            }
        )
    )
    subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "store")
    # Some installers make links.
    return shutil.copytree(
        tmp_path / "store", tmp_path / "site", copy_function=os.symlink
    )


def test_the_wheel_opens_in_a_fresh_process(site):
    paths = site, LIBRARY.parent, DRAWINGS.parent
    path = os.pathsep.join(map(str, paths))
    done = subprocess.run(
        [sys.executable, "-c", OPEN],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # All that is met first starts from photographs.
    tasks = ("vqa", "mlm", "retrieval", "contrastive")
    family = tuple(release.FAMILY + task for task in tasks)
    offered = sorted(release.FAMILY + task for task in release.PRESETS)
    assert done.stdout.splitlines()[-5:] == [
        "bridgetower_small_photo_ {} bridgetower_small_photo_vqa",
        str(family),
        str(offered),
        "cat.jpg coffee.jpg cat.jpg coffee.jpg",
        "(128,)",
    ]
    (info,) = site.glob("*.dist-info")
    assert "License-Expression: GPL-3.0-only" in (info / "METADATA").read_text()
    licences = {path.name for path in (info / "licenses").iterdir()}
    assert licences == {"LICENSE", "LICENSE.encoders"}


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


@TRAINED
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", ["answer", "score", "embed"])
def test_what_is_shipped_without_keras_equals_it(method):
    pictures = [PACKAGE / "examples" / f"{x}.jpg" for x in ("cat", "coffee")]
    texts = ["what animal is this?", "a cup of coffee"]
    task = {"answer": "vqa", "score": "retrieval", "embed": "contrastive"}
    for given in {
        "answer": [{"images": pictures, "questions": texts, "top_k": 5}],
        "score": [{"images": pictures, "texts": texts}],
        "embed": [{"images": pictures}, {"texts": texts}],
    }[method]:
        check_shipped(release.FAMILY + task[method], method, **given)


@TRAINED
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


@TRAINED
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


@TRAINED
def test_answers_fit_their_questions():
    """What the preset cannot know, it says that it does not know."""
    task = kbt.BridgeTowerVQA.from_preset(PACKAGE / release.FOLDER)
    cat, coffee = (
        PACKAGE / "examples" / f"{name}.jpg" for name in ("cat", "coffee")
    )
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
