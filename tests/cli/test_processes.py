"""What commands print to the byte, import, complete, and show a terminal."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.cli import output

pytestmark = FASTEST
ROOT = pathlib.Path(__file__).parents[2]
VQA = "bridgetower_tiny_emoji_vqa"
PICTURE = ROOT / "examples/drawings/penguin.png"
COMMANDS = (
    *("ask", "match", "rank", "fill", "embed", "entail", "compare"),
    *("predict", "train", "evaluate", "presets", "convert", "export"),
    *("demo", "serve", "doctor", "search index", "search query"),
    *("search info", "search remove", "search prune", "data check"),
    *("data build", "data stats", "quantize"),
)


def start(*words, environment=None, **kwargs):
    # As a user has it: nothing tells the frameworks to be quiet, or JAX where
    # to keep what it compiles.
    ours = ("TF_CPP_MIN_LOG_LEVEL", frameworks.JAX_CACHE)
    loud = {k: v for k, v in os.environ.items() if k not in ours}
    given = environment or {}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=loud | {"PYTHONPATH": os.pathsep.join(sys.path)} | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **kwargs,
    )


def test_ask_prints_only_the_answer():
    question = "is this a bird?"
    words = ("-m", "keras_bridgetower", "ask", str(PICTURE), question)
    running = start(*words, "--preset", VQA)
    vqa = kbt.BridgeTowerVQA.from_preset(VQA)
    [(answer, score)] = vqa.answer(PICTURE, question)
    out, err = running.communicate(timeout=300)
    assert out == f"{answer}\t{score:.5f}\n".encode()
    assert err == b""
    assert running.returncode == 0


@pytest.mark.slow
def test_jax_reuses_compiled_programs(tmp_path):
    words = ("-m", "keras_bridgetower", "ask", str(PICTURE), "what color?")
    words += ("--preset", VQA)
    environment = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    kept, said = [], set()
    for _ in range(2):
        running = start(*words, environment=environment)
        said.add(running.communicate(timeout=300))
        files = (tmp_path / "keras_bridgetower_compiled").glob("*-cache")
        kept.append(sorted(file.name for file in files))
    # The second start compiles nothing anew, and nothing is printed of it.
    assert kept[0] and kept[0] == kept[1]
    [(out, err)] = said
    assert out.startswith(b"gray") and err == b""


def test_help_and_presets_import_no_keras():
    code = """
import sys
sys.argv = ["/usr/bin/keras-bridgetower", "--help"]
from keras_bridgetower.apps.cli.main import main
codes = [main([*w.split(), "--help"]) for w in sys.stdin.read().split(",")]
codes += [main(["presets"]), main(["ask", "a.png", "b", "--preset", "none"])]
heavy = {"keras", "tensorflow", "torch", "jax", "numpy", "PIL"}
found = heavy & set(sys.modules)
# Of what `search info`, `remove` and `prune` import.
import keras_bridgetower.apps.search.header
sys.exit(repr((codes, found | {"keras", "torch"} & set(sys.modules))))
"""
    running = start("-c", code, stdin=subprocess.PIPE)
    out, err = running.communicate(",".join(COMMANDS).encode(), timeout=60)
    assert out.count(b"Print JSON.") == len(COMMANDS)
    # The help of a parameter is in the docstring of its command.
    assert b"Question about the picture." in out
    # The last one names a preset that does not exist.
    codes = [0] * (len(COMMANDS) + 1) + [2]
    assert err.decode().splitlines()[-1] == repr((codes, set()))


def test_closed_pipe_prints_no_error():
    with start("-m", "keras_bridgetower", "presets", "--json") as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


@pytest.mark.parametrize("debug", [False, True])
def test_child_processes_are_quiet(debug, capfd):
    code = "import os; os.write(1, b'out'); os.write(2, b'err')"
    with frameworks.silenced(debug):
        subprocess.run([sys.executable, "-S", "-c", code], check=True)
        output.warn("of the command")
    shown = capfd.readouterr()
    assert shown.out == ("out" if debug else "")
    assert shown.err == ("err" if debug else "") + "warning: of the command\n"


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
