"""A process of its own: what an import brings, and the library without apps."""

import os
import pathlib
import subprocess
import sys

import keras
from builders import LONG_ELSEWHERE

import keras_bridgetower as kbt

BACKEND = keras.config.backend()
PACKAGE = pathlib.Path(kbt.__file__).parent
PRESET = "bridgetower_tiny_emoji_vqa"
SCRIPT = f"""
import sys
import numpy as np
import keras_hub
frameworks = {{"tensorflow", "torch", "jax"}}
before = frameworks & set(sys.modules)
import keras_bridgetower as kbt
assert frameworks & set(sys.modules) == before

for name in kbt.__all__:
    if name not in ("search", "export_to_sentence_transformers"):
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


@LONG_ELSEWHERE
def test_core_works_alone(tmp_path):
    package = tmp_path / PACKAGE.name
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.name not in ("apps", "__pycache__"):
            (package / path.name).symlink_to(path)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(tmp_path), "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
