"""Test the errors of commands: one line, a fix, and an exit code."""

import pathlib
import socket
import sys

import pytest
from builders import FASTEST
from drawn_photos import bomb
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import main

pytestmark = FASTEST
PICTURES = pathlib.Path(__file__).parents[2] / "examples/pictures"
PICTURE = str(PICTURES / "easy_vqa_test_6.png")
FAILED, WRONG_USAGE = 1, 2


@pytest.fixture
def fails(capsys):
    """Run a command that fails, and return its code and its one line."""

    def fails(*words):
        capsys.readouterr()
        code = main.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.endswith("\n")
        assert err.startswith("keras-bridgetower: ") and "Traceback" not in err
        return code, err

    return fails


VQA, MLM = (f"bridgetower_tiny_easy_{name}" for name in ("vqa", "mlm"))
ASK = ("ask", PICTURE, "what?")
PREDICT = ("predict", VQA, "vqa", PICTURES)
TRAIN = ("train", "vqa_base", "--data", "TMP", "--init", VQA)
ONE_LINE = [
    (WRONG_USAGE, "no preset 'easy_vqa'", *ASK, "--preset", "easy_vqa"),
    (WRONG_USAGE, "Did you mean bridget", *ASK, "--preset", "tiny_easy_vqa"),
    (FAILED, "the preset does not hold it", *ASK, "--preset", MLM),
    (FAILED, "with a config.json", *ASK, "--preset", PICTURES),
    (FAILED, "There is no file 'TMP/none.png'.", "ask", "TMP/none.png", "?"),
    (FAILED, "at most 89478485 pixels", "ask", "TMP/bomb.png", "what?"),
    (WRONG_USAGE, "No such command 'frobnicate'", "frobnicate"),
    (WRONG_USAGE, "--top-k", *ASK, "--top-k", "0"),
    (WRONG_USAGE, "Give `--text` or `--image`", "embed"),
    (WRONG_USAGE, "or as many of both", "embed", "--image", PICTURE)
    + ("--text", "a", "--text", "b"),
    (WRONG_USAGE, "need `--runner`", *PREDICT, "b", "--pictures", "a"),
    (WRONG_USAGE, "`--init` and `--encoders", "train", "x", "--data", "x"),
    (WRONG_USAGE, "`--distribute fsdp`", *TRAIN, "--shard-devices", "2"),
    (WRONG_USAGE, "needs PyTorch, and", *TRAIN, "--gradient-dtype", "float32"),
    (FAILED, "`recipe` must be one of", "train", "vqa_bas", *TRAIN[2:]),
    (FAILED, "`field` must be one of", *TRAIN, "--set", "batchsize=3"),
    (FAILED, "`new_poolers` must be", *TRAIN, "--set", "new_poolers=false"),
    (WRONG_USAGE, "--format", "export", VQA, "TMP/new", "--format", "x"),
    (WRONG_USAGE, "`--part`", "export", VQA, "TMP/new", "--part", "fusion"),
    (WRONG_USAGE, "`--text` needs", "export", VQA, "TMP/new", "--text", "a")
    + ("--format", "onnx"),
    (WRONG_USAGE, "`--verify` needs", "export", VQA, "TMP/new", "--verify")
    + ("--format", "onnx"),
    # Of settings, before the first row.
    (FAILED, "`top_k` must be from 1 to 13", *PREDICT, "TMP/new")
    + ("--text", "what?", "--top-k", 99),
    (FAILED, "`text` must not be empty", *PREDICT, "TMP/new", "--text", ""),
]


@pytest.mark.parametrize("row", ONE_LINE)
def test_errors_are_one_line(row, fails, tmp_path):
    code, told, *words = (str(x).replace("TMP", str(tmp_path)) for x in row)
    bomb(tmp_path / "bomb.png")
    found, said = fails(*words)
    assert str(found) == code and told in said
    assert not (tmp_path / "new").exists()


def test_the_page_on_a_taken_port_or_without_gradio(fails, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = fails("demo", "--port", port)
    assert code == FAILED and f"('127.0.0.1', {port})" in said
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, said = fails("demo", "--port", 0)
    assert code == FAILED and "pip install --no-deps gradio==" in said


def test_debug_shows_the_traceback(capsys, tmp_path):
    for words in (["--debug", "data", "stats"], ["data", "--debug", "stats"]):
        assert main.main([*words, str(tmp_path)]) == FAILED
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        last = err.splitlines()[-1]
        assert last.startswith("keras-bridgetower: ") and "index.json" in last


def test_missing_backend(fails, monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    # As if they were not installed.
    for name in ("jax", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    code, said = fails("ask", PICTURE, "what?")
    told = "The backend {0} is not installed (KERAS_BACKEND={0}). Set KERAS_B"
    assert code == FAILED and told.format("jax") in said
    # A format chooses the backend that can write it.
    monkeypatch.delenv("KERAS_BACKEND")
    code, said = fails("export", VQA, tmp_path / "a", "--format", "litert")
    assert code == FAILED and told.format("tensorflow") in said
    # Without the variable, which that command has set, a file of Keras does.
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert frameworks.chosen_backend()[0] == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    name, reason = frameworks.chosen_backend()
    assert name == "jax" and str(tmp_path / "keras.json") in reason


def test_unexpected_errors_are_called_bugs():
    line = errors.line(KeyError("x\n\x1b[31m"), "kb")
    assert line.startswith("kb: KeyError: ") and "--debug" in line
    assert "\n" not in line and "\x1b" not in line
    assert errors.exit_code(KeyError()) == FAILED
    assert errors.exit_code(KeyboardInterrupt()) == 130


def test_only_warnings_of_the_package_are_shown(capsys, tmp_path):
    """A preset without a manifest is one; Pillow's of an icon are not."""
    preset = tmp_path / "preset"
    task = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    task.save_to_preset(preset)
    (preset / "manifest.json").unlink()
    transparent = tmp_path / "palette.png"
    picture = Image.new("P", (64, 64))
    # Pillow warns of it when it is converted.
    picture.save(transparent, transparency=b"\x00" * 3)
    words = ["ask", str(transparent), "what?", "--preset", str(preset)]
    assert main.main(words) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: The preset ")
    assert "has no manifest.json" in line
