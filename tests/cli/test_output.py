"""What commands print where stdout cannot hold every character."""

import io
import json
import os
import pathlib
import shutil
import sys

import pytest
from builders import FASTEST

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.cli import output

pytestmark = FASTEST
PENGUIN = pathlib.Path(__file__).parents[2] / "examples/drawings/penguin.png"
WORD = "тигр 虎"
# A name that is not UTF-8, as Python holds it.
BAD = os.fsdecode(b"bad\xff\xfe.png")


class _Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture(params=["ascii", "utf-8"])
def printed(request, monkeypatch):
    """What goes to a stdout of an encoding, as a callable."""

    def open_stdout(kind=io.TextIOWrapper):
        held = io.BytesIO()
        stdout = kind(held, encoding=request.param)
        monkeypatch.setattr(sys, "stdout", stdout)

        def text():
            stdout.flush()
            return held.getvalue().decode(request.param)

        return text

    open_stdout.encoding = request.param
    return open_stdout


def test_json_can_hold_any_file_name(printed):
    text = printed()
    value = {"picture": pathlib.Path(BAD), "text": WORD}
    output.show(True, value, (), ())
    text().encode("utf-8")
    assert json.loads(text()) == {"picture": BAD, "text": WORD}


@pytest.mark.parametrize("kind", [io.TextIOWrapper, _Terminal])
def test_unencodable_characters_are_escaped(printed, kind):
    text = printed(kind)
    output.show(False, None, ("picture", "text"), [(BAD, WORD)])
    assert r"bad\udcff\udcfe.png" in text()
    escaped = WORD.encode("ascii", "backslashreplace").decode()
    assert (WORD if printed.encoding == "utf-8" else escaped) in text()


@pytest.mark.parametrize("words", [["ask"], ["rank"]])
def test_exit_codes(printed, words, tmp_path):
    picture = tmp_path / BAD
    try:
        shutil.copy(PENGUIN, picture)
    except OSError:
        pytest.skip("names of files are UTF-8 here")
    named = [str(picture), WORD] if words == ["ask"] else [WORD, str(picture)]
    for more in ([], ["--json"]):
        text = printed()
        assert main.main([*words, *named, *more]) == 0
    found = json.loads(text())
    if words == ["rank"]:
        [found] = found["pictures"]
    assert found["picture"] == str(picture)
