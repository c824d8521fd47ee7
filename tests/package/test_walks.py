"""The walks of docs/architecture.md: what calls enter, in that order."""

import pathlib
import re
import sys

import pytest
from builders import FASTEST

import keras_bridgetower as kbt

pytestmark = FASTEST
PACKAGE = pathlib.Path(kbt.__file__).parent
ROOT = PACKAGE.parent
PRESET = "bridgetower_tiny_emoji_vqa"
PICTURE = str(ROOT / "examples/drawings/penguin.png")
# Files that a walk enters at most.
MOST = {"from_preset": 10, "answer": 9, "fit": 12}
STEP = re.compile(r"^\d+\. `(\S+\.py)` `(\S+)`: ", re.M)


def walks():
    """Read the steps of each walk, as (file, function), from the page."""
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split("\n## Three walks\n")[1].split("\n## ")[0]
    parts = re.split(r"^### `.*?\.(\w+)\(.*$", section, flags=re.M)[1:]
    named = zip(parts[::2], parts[1::2], strict=True)
    return {name: STEP.findall(text) for name, text in named}


def entered(call):
    """Return the functions of the package in the order of first calls."""
    found, start = {}, f"{PACKAGE}/"

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(start):
            file = code.co_filename.removeprefix(start)
            found.setdefault((file, code.co_qualname), len(found))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def from_preset():
    kbt.BridgeTowerVQA.from_preset(PRESET)


def answer():
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    return lambda: vqa.answer(PICTURE, "is this a bird?")


def fit():
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    x = {"images": [PICTURE] * 2, "text": ["is this a bird?"] * 2}
    return lambda: vqa.fit(x, ["yes", "no"], batch_size=2, verbose=0)


CALLS = {"from_preset": lambda: from_preset, "answer": answer, "fit": fit}


@pytest.mark.parametrize("name", MOST)
def test_walks_are_those_of_the_page(name):
    steps = walks()[name]
    files = [file for file, _ in steps]
    assert len(set(files)) == len(files) <= MOST[name]
    order = entered(CALLS[name]())
    places = [order[step] for step in steps]
    assert places == sorted(places), sorted(steps, key=order.get)
