"""What commands print where stdout cannot hold every character."""

import io
import json
import os
import pathlib
import sys

import pytest
from builders import FASTEST

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.cli import output

pytestmark = FASTEST
WORD = "тигр 虎"
# A name that is not UTF-8, as Python holds it.
BAD = os.fsdecode(b"bad\xff\xfe.png")


class _Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("kind", [io.TextIOWrapper, _Terminal])
def test_every_stdout_can_hold_any_text(kind, encoding, monkeypatch):
    def printed(as_json):
        held = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", kind(held, encoding=encoding))
        value = {"picture": pathlib.Path(BAD), "text": WORD}
        output.show(as_json, value, ("picture", "text"), [(BAD, WORD)])
        sys.stdout.flush()
        return held.getvalue().decode(encoding)

    assert json.loads(printed(True)) == {"picture": BAD, "text": WORD}
    escaped = WORD.encode(encoding, "backslashreplace").decode(encoding)
    text = printed(False)
    assert r"bad\udcff\udcfe.png" in text and escaped in text


def test_a_terminal_gets_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    assert main.main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["preset", "parameters"]
    assert lines[1].split()[0] == "bridgetower_tiny_emoji_vqa"
    assert "\t" not in lines[1]
