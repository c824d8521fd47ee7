"""The wheels of the three distributions, where there is no clone."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from builders import FASTEST

from keras_bridgetower.apps import exported

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ROOT / "preset_packages"
SCRIPT = """
import socket
import numpy as np

def refuse(*args):
    raise OSError("no network")

socket.socket.connect = refuse
import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.demo.models import OFFERED
from keras_bridgetower.presets import table

# All that is met first starts from photographs.
assert table.default_family() == "bridgetower_small_photo_"
assert table.not_installed() == {}
assert len(models.FAMILY) == 4
assert all(name.startswith(table.default_family()) for name in OFFERED[:5])
print(kbt.__file__)
picture = np.full((64, 64, 3), 200, "uint8")
for family in ("tiny_emoji", "small_photo"):
    vqa = kbt.BridgeTowerVQA.from_preset(f"bridgetower_{family}_vqa")
    print(vqa.answer(picture, "what color is it mostly?"))
"""


def run(*words, env=(), **kwargs):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | dict(env)
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, env=env, **kwargs
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@FASTEST
def test_wheels_work_in_an_environment_of_their_own(tmp_path):
    pip = sys.executable, "-m", "pip", "--quiet"
    wheels, env = tmp_path / "wheels", tmp_path / "env"
    for source in (ROOT, PACKAGES / "drawings", PACKAGES / "photos"):
        # The builder writes beside the sources.
        copy = tmp_path / "sources" / source.name
        copy.mkdir(parents=True)
        for path in source.iterdir():
            if path.name.startswith("keras_") and path.suffix == "":
                shutil.copytree(path, copy / path.name)
            elif path.name.startswith(("LICENSE", "README", "pyproject")):
                shutil.copy(path, copy)
        words = "--no-deps", "--no-build-isolation", "--wheel-dir", wheels
        run(*pip, "wheel", copy, *words)
    found = sorted(wheels.iterdir())
    assert len(found) == 3
    assert min(path.stat().st_size for path in found) <= 1_500_000
    venv.create(env)
    python = env / "bin" / "python"
    words = "--no-deps", "--no-index", *found
    run(*pip, "--python", python, "install", *words)
    # Other packages are those of this environment, without its clone.
    (site,) = (env / "lib").glob("*/site-packages")
    others = site / "others.pth"
    others.write_text(sysconfig.get_path("purelib"))
    file, *answers = run(python, "-c", SCRIPT, cwd=tmp_path).splitlines()
    assert file.startswith(str(site))
    assert len(answers) == 2
    (info,) = site.glob("*photos*.dist-info")
    assert "License-Expression: GPL-3.0-only" in (info / "METADATA").read_text()
    licenses = {path.name for path in (info / "licenses").iterdir()}
    assert licenses == {"LICENSE", "LICENSE.encoders"}
    command = env / "bin" / "keras-bridgetower"
    said = run(command, "presets", cwd=tmp_path)
    assert "bridgetower_tiny_emoji_vqa" in said
    assert "bridgetower_small_photo_vqa" in said
    pytest.importorskip("onnxruntime")
    words = "ask", ROOT / "examples/photographs/cat.jpg", "what animal is this?"
    # Keras would not open.
    given = {"KERAS_BACKEND": "none", exported.SWITCH: "1"}
    said = run(command, *words, cwd=tmp_path, env=given)
    assert said.startswith("cat (")
