"""Presets of other distributions, and the pictures to try them with."""

import dataclasses
import importlib.metadata
import json
import pathlib

import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import main
from keras_bridgetower.presets import table

pytestmark = FASTEST
INSTALL = "pip install ./preset_packages/photos"
DRAWINGS = pathlib.Path(table.PRESETS["bridgetower_tiny_emoji_vqa"].root)
ROW = json.loads((DRAWINGS / "table.json").read_text())[
    "bridgetower_tiny_easy_contrastive"
]
EXAMPLES = "ask", "match", "search", "fill", "look", "pictures"


@pytest.fixture(autouse=True)
def _without_drawings(monkeypatch):
    find = importlib.metadata.distributions
    monkeypatch.setattr(
        importlib.metadata,
        "distributions",
        lambda: (x for x in find() if x.name != "keras-bridgetower-drawings"),
    )


def install(
    site, name="my_presets", value=None, rows=None, points=None, examples=None
):
    """Write a distribution with a preset into a folder, as pip does."""
    value = value or name
    package, info = (
        site.joinpath(*value.split(".")),
        site / f"{name}-1.dist-info",
    )
    for folder in (package / "examples", info):
        folder.mkdir(parents=True)
    for folder in (package, site / value.partition(".")[0]):
        (folder / "__init__.py").write_text("raise RuntimeError('was run')\n")
    if rows is None:
        rows = {"my_shapes": {**ROW, "knows": "my shapes"}}
    (package / "table.json").write_text(json.dumps(rows))
    if examples is not None:
        (package / "examples" / "examples.json").write_text(
            json.dumps(dict.fromkeys(EXAMPLES, []) | examples)
        )
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
    points = points or f"[{table.GROUP}]\n{name} = {value}\n".encode()
    (info / "entry_points.txt").write_bytes(points)
    return package


@pytest.mark.parametrize("value", ["my_presets", "company.my_presets"])
def test_a_distribution_is_read_and_not_run(value, tmp_path, monkeypatch):
    package = install(tmp_path, value=value, examples={"ask": [["a.png", "b"]]})
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = table.installed().values()
    assert found.path == package / "my_shapes"
    assert found.knows == "my shapes"


GROUP = table.GROUP.encode()
BROKEN = [
    *({"points": data} for data in (b"\xff" + GROUP, b"[%b]\nno" % GROUP)),
    *(
        {"points": b"[%b]\na = %b\n" % (GROUP, value)}
        for value in (b"no_such_package", b"json", b"..", b"/", b"my_presets:a")
    ),
    *({"rows": rows} for rows in ([], {"a": []}, {"a": {}})),
    {"rows": {f"a{i}": ROW for i in range(200_000)}},
    *({"rows": {name: ROW}} for name in ("hf://a/b", "../a", "/a", "", "a\n")),
    *(
        {"rows": {"a": {**ROW, key: value}}}
        for key, values in {
            "heads": (3, [["x"]], "itc", None),
            "tasks": ([{}], {"a": 1}),
            "parameters": ("many", -1, 1e30, 10**400, None, float("nan")),
            "image_size": (-1, "64", [64]),
            "description": (None, "\x1b[2J", "\ud800", ["a"]),
            "knows": (7, "a\nb"),
            "folder": ("/etc", "..", "../../etc", ".", "link", 7),
            "handle": ("/etc", "hf://a/b"),
            "reranks": ("no",),
            "similarity_weight": ("1",),
            "root": ("/etc",),
            "colour": ("red",),
        }.items()
        for value in values
    ),
    *(
        {"examples": {"look": rows}}
        for rows in ([["../a.png", "b"]], [["/a.png", "b"]], [["a.png"]], 7)
    ),
]


@pytest.mark.parametrize("values", BROKEN, ids=lambda x: f"{x!s:.60}")
def test_a_broken_distribution_is_one_warning(values, tmp_path, monkeypatch):
    package = install(tmp_path, **values)
    (package / "link").symlink_to("/etc")
    install(tmp_path, "others", rows={"theirs": ROW})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning) as warned:
        assert list(table.installed()) == ["theirs"]
    (text,) = (str(one.message) for one in warned)
    for words in ("'my_presets'", str(tmp_path), "uninstall it"):
        assert words in text


@pytest.mark.parametrize("package", [None, "my_presets"])
def test_two_distributions_with_one_name(package, tmp_path, monkeypatch):
    """Neither replaces the other, nor a preset of this package."""
    rows = {"my_shapes": ROW, "bridgetower_base": ROW}
    install(tmp_path / "a", rows=rows)
    install(tmp_path / "b", "others", package, {"my_shapes": ROW, "more": ROW})
    for site in ("a", "b"):
        monkeypatch.syspath_prepend(tmp_path / site)
    with pytest.warns(UserWarning) as warned:
        assert list(table.installed()) == ["more"]
    (text,) = (str(one.message) for one in warned)
    assert "'my_shapes': ['my-presets', 'others']" in text
    assert "'bridgetower_base': ['keras-bridgetower', 'my-pr" in text


def test_the_first_of_two_versions_counts(tmp_path, monkeypatch, recwarn):
    for site in ("a", "b"):
        install(tmp_path / site)
        monkeypatch.syspath_prepend(tmp_path / site)
    (found,) = table.installed().values()
    assert found.path == tmp_path / "b" / "my_presets" / "my_shapes"
    assert not recwarn.list


def test_a_distribution_that_is_not_installed_is_named(monkeypatch, capsys):
    emoji = "bridgetower_tiny_emoji_vqa"
    monkeypatch.setattr(table, "PRESETS", {emoji: table.PRESETS[emoji]})
    command, name = INSTALL, "bridgetower_small_photo_vqa"
    with pytest.raises(ValueError, match=f"in a clone: `{command}`. "):
        kbt.BridgeTowerVQA.from_preset(name)
    for words in (["presets"], ["ask", "a.png", "what?", "--preset", name]):
        main.main(words)
        assert f"`{command}`" in capsys.readouterr().err
    main.main(["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)["missing_presets"]
    assert said == {"bridgetower_small_photo_": command}


def test_the_default_family_is_photos_if_installed(monkeypatch):
    preset = table.PRESETS["bridgetower_tiny_emoji_vqa"]
    families = ("small_photo", "tiny_emoji", "tiny_easy")
    names = [f"bridgetower_{family}_vqa" for family in families]
    for expected in (names, names[1:]):
        installed = dict.fromkeys(reversed(expected), preset)
        monkeypatch.setattr(table, "PRESETS", installed)
        assert f"{table.default_family()}vqa" == expected[0]
        assert table.shipped_with(("vqa",)) == expected


ROOT = pathlib.Path(kbt.__file__).parents[1]
PHOTOS = ROOT / "preset_packages" / "photos" / "keras_bridgetower_photos"
PHOTO = "bridgetower_small_photo_vqa"


@pytest.fixture
def with_photos(monkeypatch):
    """The table of an environment with the photo presets."""
    emoji = table.PRESETS["bridgetower_tiny_emoji_vqa"]
    photo = dataclasses.replace(emoji, name=PHOTO, root=str(PHOTOS))
    presets = {**table.PRESETS, PHOTO: photo}
    monkeypatch.setattr(table, "PRESETS", presets)


def check_whole(found, suffix):
    assert set(found) == {*EXAMPLES}
    shown = {path for path, _ in found["pictures"]}
    used = {path for rows in found.values() for path, _ in rows if path}
    assert used <= shown
    assert {path.suffix for path in shown} == {suffix}
    for path in shown:
        with Image.open(path) as picture:
            picture.verify()
    assert all("___" in text for _, text in found["fill"])


def test_photographs_if_they_are_installed(with_photos, tmp_path, monkeypatch):
    assert kbt.default_family() == "bridgetower_small_photo_"
    found = kbt.first_examples()
    check_whole(found, ".jpg")
    # Published presets know photographs, and have no pictures of their own.
    for name in (PHOTO, "bridgetower_base", "no/such/folder"):
        assert kbt.first_examples(name) == found
    check_whole(kbt.first_examples("bridgetower_tiny_emoji_vqa"), ".png")
    for path in (PHOTOS / "examples").glob("*.jpg"):
        first = ROOT / "examples" / "photographs" / path.name
        assert path.read_bytes() == first.read_bytes()
    # A distribution without examples.
    bare = dataclasses.replace(table.PRESETS[PHOTO], root=str(tmp_path))
    monkeypatch.setitem(table.PRESETS, PHOTO, bare)
    check_whole(kbt.first_examples(), ".png")


def test_emoji_otherwise():
    assert kbt.default_family() == "bridgetower_tiny_emoji_"
    found = kbt.first_examples()
    check_whole(found, ".png")
    assert found == kbt.first_examples("bridgetower_base")
