"""Test the errors of commands: one line, a fix, and an exit code."""

import pathlib
import socket
import sys

import pytest
from builders import FASTEST
from drawn_photos import bomb
from PIL import Image

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
PREDICT = ("predict", VQA, "vqa")
TRAIN = ("train", "vqa_base", "--data", "TMP", "--init", VQA)
ONE_LINE = [
    (WRONG_USAGE, "no preset 'easy_vqa'", *ASK, "--preset", "easy_vqa"),
    (WRONG_USAGE, "Did you mean bridget", *ASK, "--preset", "tiny_easy_vqa"),
    (WRONG_USAGE, "the heads mlm, and this command", *ASK, "--preset", MLM),
    (WRONG_USAGE, "Take one of: bridgetower_tiny_e", *ASK, "--preset", MLM),
    (FAILED, "with a config.json", *ASK, "--preset", PICTURES),
    (FAILED, "There is no file or folder", "ask", "TMP/none.png", "what?"),
    (WRONG_USAGE, "A picture must be a file", "ask", "TMP", "what?"),
    (FAILED, "must be a readable image file", "ask", "TMP/a.png", "what?"),
    (FAILED, "at most 89478485 pixels", "ask", "TMP/bomb.png", "what?"),
    (WRONG_USAGE, "none in", "rank", "a circle", "TMP/empty"),
    (FAILED, "at least one row", *PREDICT, "TMP/empty", "TMP/new")
    + ("--text", "what?"),
    (WRONG_USAGE, "No such command 'frobnicate'", "frobnicate"),
    (WRONG_USAGE, "Missing argument", "ask", PICTURE),
    (WRONG_USAGE, "No such option", *ASK, "--frob"),
    (WRONG_USAGE, "--top-k", *ASK, "--top-k", "0"),
    (WRONG_USAGE, "Give `--text` or `--image`", "embed"),
    (WRONG_USAGE, "2 texts", "embed", "--text", "a", "--text", "b")
    + ("--image", PICTURE),
    (WRONG_USAGE, "TASK must", "predict", VQA, "vqb", "a", "b"),
    (WRONG_USAGE, "need `--runner`", *PREDICT, "a", "b", "--shard-rows", "5"),
    (WRONG_USAGE, "`--init` and `--encoders", "train", "x", "--data", "x"),
    (WRONG_USAGE, "--data", "train", "vqa_base", "--init", "x"),
    (FAILED, "'192.0.2.1'", "demo", "--host", "192.0.2.1"),
    (WRONG_USAGE, "no preset 'tiny_easy_vqa'", "demo", "tiny_easy_vqa"),
    (WRONG_USAGE, "--port", "demo", "--port", 65536),
    # Errors of the library.
    (FAILED, "`top_k` must be from 1 to 47", *ASK, "--top-k", 99),
    (FAILED, "must be the index of a data", "data", "stats", "TMP"),
    (FAILED, "vqav2", "data", "check", "frob", "TMP"),
    (FAILED, "`source` must exist", "convert", "TMP/none", "TMP/new"),
    (FAILED, "transformers cannot run this", "export", MLM, "TMP/new"),
    (FAILED, "the nearest is 'vqa_base'", "train", "vqa_bas", *TRAIN[2:]),
    (WRONG_USAGE, "nearest is 'batch_size'", *TRAIN, "--set", "batchsize=3"),
    (WRONG_USAGE, "must be FIELD=VALUE", *TRAIN, "--set", "batch_size"),
    # Of settings, before the first row.
    (WRONG_USAGE, "`top_k` must be from 1 to 13", *PREDICT, PICTURES)
    + ("TMP/new", "--text", "what?", "--top-k", 99),
    (WRONG_USAGE, "`text` must not be empty", *PREDICT, PICTURES, "TMP/new")
    + ("--text", ""),
    (FAILED, "OUT must be a plain file", *PREDICT, PICTURES, "TMP/empty")
    + ("--text", "what?"),
]


@pytest.mark.parametrize("row", ONE_LINE)
def test_errors_are_one_line(row, fails, tmp_path):
    code, told, *words = row
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    bomb(tmp_path / "bomb.png")
    words = [str(word).replace("TMP", str(tmp_path)) for word in words]
    found, said = fails(*words)
    assert found == code and told in said
    assert not (tmp_path / "new").exists()
    assert not any((tmp_path / "empty").iterdir())


def test_demo_on_a_port_that_is_taken(fails):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = fails("demo", "--port", port)
    assert code == FAILED and f"('127.0.0.1', {port})" in said


def test_demo_without_gradio(fails, monkeypatch):
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, said = fails("demo", "--port", 0)
    assert code == FAILED and "keras-bridgetower[demo]" in said
    assert "pip install --no-deps gradio==" in said


def test_debug_shows_the_traceback(capsys, tmp_path):
    for words in (["--debug", "data", "stats"], ["data", "--debug", "stats"]):
        assert main.main([*words, str(tmp_path)]) == FAILED
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        last = err.splitlines()[-1]
        assert last.startswith("keras-bridgetower: ") and "index.json" in last
    # What follows `--` is no option.
    assert main.main(["data", "stats", "--", "--debug"]) == FAILED
    assert "Traceback" not in capsys.readouterr().err


def test_missing_backend(fails, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "jax", None)
    code, said = fails("ask", PICTURE, "what?")
    assert code == FAILED
    assert "The backend jax is not installed (KERAS_BACKEND=jax)" in said
    assert 'pip install "keras-bridgetower[jax]"' in said
    assert "KERAS_BACKEND=torch" in said
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    code, said = fails("ask", PICTURE, "what?")
    assert code == FAILED and "must be one of tensorflow, jax, torch" in said


def test_export_format_without_its_backend(fails, monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(frameworks, "installed_backends", lambda: ["jax"])
    words = ("export", "bridgetower_tiny_easy_vqa", tmp_path / "new")
    for format, backend in (("onnx", "torch"), ("litert", "tensorflow")):
        code, said = fails(*words, "--format", format)
        assert code == FAILED
        assert (
            f"`--format {format}` is written by the backend {backend}" in said
        )
        assert f'pip install "keras-bridgetower[{backend},export]"' in said


def test_reason_for_the_backend(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert frameworks.chosen_backend() == ("torch", "KERAS_BACKEND=torch")
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


def test_only_warnings_of_the_package_are_shown(capsys, monkeypatch, tmp_path):
    """A preset without a manifest is one; Pillow's of an icon are not."""
    import keras_bridgetower as kbt

    preset = tmp_path / "preset"
    kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa").save_to_preset(
        preset
    )
    (preset / "manifest.json").unlink()
    transparent = tmp_path / "palette.png"
    picture = Image.new("P", (64, 64))
    picture.info["transparency"] = b"\x00" * 3
    # Pillow warns of it when it is converted.
    picture.save(transparent, transparency=b"\x00" * 3)
    words = ["ask", str(transparent), "what?", "--preset", str(preset)]
    assert main.main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: The preset ")
    assert "has no manifest.json" in lines[0]
