"""What commands say of wrong input: one line, a fix, and an exit code."""

import pathlib
import socket
import struct
import sys
import zlib

import pytest
from builders import FASTEST
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


def bomb(path):
    """A PNG of 70 bytes that says that it has 10^10 pixels."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0"))
    )
    return path


def test_presets(fails):
    code, said = fails("ask", PICTURE, "what?", "--preset", "tiny_easy_vqa")
    assert code == WRONG_USAGE
    assert "no preset 'tiny_easy_vqa'" in said
    assert "Did you mean bridgetower_tiny_easy_vqa" in said

    words = ("--preset", "bridgetower_tiny_easy_mlm")
    code, said = fails("ask", PICTURE, "what?", *words)
    assert code == WRONG_USAGE
    assert "has the heads mlm, and this command needs vqa" in said
    assert "Take one of: bridgetower_tiny_emoji_vqa, " in said

    words = ("--preset", PICTURES)
    code, said = fails("ask", PICTURE, "what?", *words)
    assert code == FAILED and "with a config.json" in said


def test_pictures(fails, tmp_path):
    code, said = fails("ask", tmp_path / "none.png", "what?")
    assert code == FAILED and "There is no file or folder" in said

    code, said = fails("ask", tmp_path, "what?")
    assert code == WRONG_USAGE and "A picture must be a file" in said

    (tmp_path / "a.png").write_text("no picture")
    code, said = fails("ask", tmp_path / "a.png", "what?")
    assert code == FAILED and "must be a readable image file" in said

    code, said = fails("ask", bomb(tmp_path / "bomb.png"), "what?")
    assert code == FAILED and "must hold at most 89478485 pixels" in said

    (tmp_path / "empty").mkdir()
    code, said = fails("rank", "a circle", tmp_path / "empty")
    assert code == WRONG_USAGE and "none in" in said

    out = tmp_path / "out.jsonl"
    words = ("predict", "bridgetower_tiny_easy_vqa", "vqa")
    code, said = fails(*words, tmp_path / "empty", out, "--text", "what?")
    assert code == FAILED and "at least one row" in said
    assert not out.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["ask", PICTURE], "Missing argument"),
        (["ask", PICTURE, "what?", "--frob"], "No such option"),
        (["ask", PICTURE, "what?", "--top-k", "0"], "--top-k"),
        (["embed"], "Give `--text` or `--image`"),
        (
            ["embed", "--text", "a", "--text", "b", "--image", PICTURE],
            "2 texts",
        ),
        (
            ["predict", "bridgetower_tiny_easy_vqa", "vqb", "a", "b"],
            "TASK must",
        ),
        (
            ["predict", "bridgetower_tiny_easy_vqa", "vqa", "a", "b"]
            + ["--shard-rows", "5"],
            "need `--runner`",
        ),
        (["train", "vqa_base", "--data", "x"], "`--init` and `--encoders"),
        (["train", "vqa_base", "--init", "x"], "--data"),
    ],
)
def test_wrong_usage(words, told, fails):
    code, said = fails(*words)
    assert code == WRONG_USAGE and told in said


def test_errors_of_the_library_are_one_line(fails, tmp_path):
    code, said = fails("ask", PICTURE, "what?", "--top-k", 99)
    assert code == FAILED and "`top_k` must be from 1 to 47" in said
    code, said = fails("data", "stats", tmp_path)
    assert code == FAILED and "A data set is a folder with an index" in said
    code, said = fails("data", "check", "frob", tmp_path)
    assert code == FAILED and "vqav2" in said
    code, said = fails("convert", tmp_path / "none", tmp_path / "new")
    assert code == FAILED and "`source` must exist" in said
    code, said = fails(
        *("export", "bridgetower_tiny_easy_mlm", tmp_path / "new")
    )
    assert code == FAILED and "transformers cannot run this" in said
    assert not (tmp_path / "new").exists()
    data = ("--data", tmp_path, "--init", "bridgetower_tiny_easy_vqa")
    code, said = fails("train", "vqa_bas", *data)
    assert code == FAILED and "the nearest is 'vqa_base'" in said
    code, said = fails("train", "vqa_base", *data, "--set", "batchsize=3")
    assert code == WRONG_USAGE and "the nearest is 'batch_size'" in said
    code, said = fails("train", "vqa_base", *data, "--set", "batch_size")
    assert code == WRONG_USAGE and "--set must be FIELD=VALUE" in said


def test_predict_checks_settings_before_the_first_row(fails, tmp_path):
    words = ("predict", "bridgetower_tiny_easy_vqa", "vqa", PICTURES)
    out = tmp_path / "out.jsonl"
    code, said = fails(*words, out, "--text", "what?", "--top-k", 99)
    assert code == WRONG_USAGE and "`top_k` must be from 1 to 13" in said
    code, said = fails(*words, out, "--text", "")
    assert code == WRONG_USAGE and "`text` must not be empty" in said
    code, said = fails(*words, tmp_path, "--text", "what?")
    assert code == FAILED and "OUT must be a plain file" in said
    assert not any(tmp_path.iterdir())


def test_demo_errors(fails):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = fails("demo", "--port", port)
    assert code == FAILED and f"port {port} of '127.0.0.1'" in said
    assert "`--port 0` takes any free port" in said
    code, said = fails("demo", "--host", "192.0.2.1")
    assert code == FAILED and "'192.0.2.1'" in said
    code, said = fails("demo", "tiny_easy_vqa")
    assert code == WRONG_USAGE and "no preset 'tiny_easy_vqa'" in said
    code, said = fails("demo", "--port", 65536)
    assert code == WRONG_USAGE and "--port" in said


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
        assert err.splitlines()[-1].startswith("keras-bridgetower: A data set")
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
