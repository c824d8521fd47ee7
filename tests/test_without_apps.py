"""The library without `keras_bridgetower/apps`."""

import os
import pathlib
import subprocess
import sys

import keras
from builders import FASTEST

import keras_bridgetower as kbt

PACKAGE = pathlib.Path(kbt.__file__).parent
PRESET = "bridgetower_tiny_emoji_vqa"
SCRIPT = f"""
import numpy as np
import keras_bridgetower as kbt

for name in kbt.__all__:
    if name != "search":
        getattr(kbt, name)
try:
    kbt.search
except ModuleNotFoundError as error:
    assert error.name == "keras_bridgetower.apps", error
vqa = kbt.BridgeTowerVQA.from_preset({PRESET!r})
picture = np.zeros((64, 64, 3), "uint8")
before = vqa.answer(picture, "what is it?")
vqa.save_to_preset("saved")
task = kbt.BridgeTowerVQA.from_preset("saved")
assert task.answer(picture, "what is it?") == before
task.fit({{"images": [picture], "text": ["what?"]}}, [before[0][0]], verbose=0)
"""


@FASTEST
def test_core_works_without_the_applications(tmp_path):
    package = tmp_path / PACKAGE.name
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.name not in ("apps", "__pycache__"):
            (package / path.name).symlink_to(path)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "KERAS_BACKEND": keras.config.backend(),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
