"""Presets of other distributions, which an entry point names."""

import json
import pathlib
import shutil

import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import main
from keras_bridgetower.presets import table

pytestmark = FASTEST
ROOT = pathlib.Path(kbt.__file__).parent
INSTALL = "pip install ./preset_packages/photos"


def install(site, name="my_presets", value=None, rows=None):
    """Write a distribution with a preset into a folder, as pip does."""
    package, info = site / name, site / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('was run')\n")
    shutil.copytree(
        ROOT / "presets" / "bridgetower_tiny_easy_contrastive",
        package / "my_shapes",
    )
    source = json.loads((ROOT / "presets" / "table.json").read_text())
    row = source["bridgetower_tiny_easy_contrastive"]
    rows = rows or {"my_shapes": {**row, "knows": "my shapes"}}
    (package / "table.json").write_text(json.dumps(rows))
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        f"[{table.GROUP}]\n{name} = {value or name}\n"
    )


def test_a_distribution_is_read_and_not_run(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = table.installed().values()
    assert found.path == tmp_path / "my_presets" / "my_shapes"
    assert found.knows == "my shapes"


@pytest.mark.parametrize(
    "values",
    [{"value": "no_such_package"}, {"rows": {"my_shapes": {"heads": 3}}}],
)
def test_a_broken_distribution_is_a_warning(values, tmp_path, monkeypatch):
    install(tmp_path, **values)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="'my_presets' could not be read"):
        assert table.installed() == {}


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
