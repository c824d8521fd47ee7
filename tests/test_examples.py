"""The examples run offline and end with what they promise."""

import os
import pathlib
import re
import subprocess
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


def run(script, *arguments, cwd):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_ask(tmp_path):
    printed = run("ask.py", cwd=tmp_path)
    assert "what color is the shape?  ->  blue" in printed
    assert "what color is the shape?  ->  red" in printed
    with Image.open(tmp_path / "attention.png") as picture:
        assert picture.size == (512, 512)
        assert len(picture.convert("L").getcolors()) > 20


def test_finetune(tmp_path):
    printed = run(
        "finetune_vqa.py", "--epochs", "3", "--pictures", "400", cwd=tmp_path
    )
    score, blind = map(
        float, re.search(r"([\d.]+) % right.*: ([\d.]+) %", printed).groups()
    )
    assert score > blind
