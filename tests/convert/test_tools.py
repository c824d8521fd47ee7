"""The tools on small checkpoints, run in this process."""

import json
import sys

import check_published
import checkpoints
import convert_checkpoint
import export_checkpoint
import official
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.convert.answers import read_answers
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.presets import hub


def run(tool, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, arguments)])
    tool.main()


@FASTEST
@pytest.mark.filterwarnings("ignore")
def test_convert_and_export(tmp_path, monkeypatch, capsys):
    checkpoints.with_all_heads(tmp_path / "theirs")
    preset, back = tmp_path / "preset", tmp_path / "back"
    run(
        convert_checkpoint,
        monkeypatch,
        tmp_path / "theirs",
        preset,
        "--verify",
    )
    printed = capsys.readouterr().out
    assert "itm, mlm, itc" in printed
    assert "tensors equal to the bit       318" in printed
    run(export_checkpoint, monkeypatch, preset, back, "--verify")
    printed = capsys.readouterr().out
    assert "BridgeTowerForMaskedLM" in printed
    assert float(printed.split("max |difference|")[1]) <= 1e-5
    with pytest.raises(SystemExit, match="must not exist yet"):
        run(convert_checkpoint, monkeypatch, back, preset)


@FASTEST
@pytest.mark.filterwarnings("ignore:BridgeTowerVQA takes features only")
def test_answers_go_into_the_preset(tmp_path, monkeypatch, capsys):
    official.save(tmp_path / "vqa.ckpt", "vqa")
    answers = [f"answer {i}" for i in range(official.ANSWERS)]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps({a: i for i, a in enumerate(answers)}))
    run(
        convert_checkpoint,
        monkeypatch,
        tmp_path / "vqa.ckpt",
        tmp_path / "preset",
        "--answers",
        file,
    )
    assert (
        kbt.BridgeTowerVQA.from_preset(tmp_path / "preset").answers == answers
    )
    file.write_text(json.dumps(answers[:-1]))
    with pytest.raises(SystemExit, match="6 answers, 7 classes"):
        run(
            convert_checkpoint,
            monkeypatch,
            tmp_path / "vqa.ckpt",
            tmp_path / "other",
            "--answers",
            file,
        )
    with pytest.raises(SystemExit, match="holds vqa. Received: --task itm"):
        run(
            convert_checkpoint,
            monkeypatch,
            tmp_path / "vqa.ckpt",
            tmp_path / "other",
            "--task",
            "itm",
        )
    assert not (tmp_path / "other").exists()


def test_forms_of_answer_files(tmp_path):
    (tmp_path / "a.txt").write_text("yes\nno\n")
    assert read_answers(tmp_path / "a.txt") == ["yes", "no"]
    (tmp_path / "a.json").write_text('["no", "yes"]')
    assert read_answers(tmp_path / "a.json") == ["no", "yes"]
    rows = [{"multiple_choice_answer": "Two."}] * 9
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"annotations": rows})
        )
    paths = [tmp_path / "train.json", tmp_path / "val.json"]
    assert read_answers(*paths) == ["2"]
    (tmp_path / "a.json").write_text('{"yes": 3}')
    with pytest.raises(ConversionError, match="must be a list of strings"):
        read_answers(tmp_path / "a.json")


def test_check_published_offline(tmp_path, monkeypatch, capsys):
    def offline(handle):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(hub.DOWNLOADS, "hf", offline)
    with pytest.raises(SystemExit, match="would fetch hf://BridgeTower"):
        run(check_published, monkeypatch, "--images", tmp_path)
    assert "000000039769.jpg" in capsys.readouterr().out
