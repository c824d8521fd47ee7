"""The commands and the tool on small checkpoints, run in this process."""

import json
import sys

import check_published
import official
import pytest
from builders import FASTEST

import keras_bridgetower as kbt
from keras_bridgetower.convert.by_hand import read_answers
from keras_bridgetower.presets import hub
from keras_bridgetower.presets.errors import ConversionError

pytestmark = FASTEST


@pytest.mark.filterwarnings("ignore")
def test_convert_and_export(three_heads, tmp_path, run):
    preset, back = tmp_path / "preset", tmp_path / "back"
    printed = run("convert", three_heads[0], preset, "--verify").out
    assert "itm, mlm, itc" in printed
    assert "tensors equal to the bit\t318" in printed
    found = json.loads(run("export", preset, back, "--verify", "--json").out)
    assert "BridgeTowerForMaskedLM" in found["classes"]
    assert float(found["max |difference|"]) <= 1e-5
    said = run("export", preset, back, code=1)
    assert "`destination` must not exist yet" in said.err


@pytest.mark.filterwarnings("ignore:BridgeTowerVQA takes features only")
def test_answers_are_saved_in_the_preset(tmp_path, run):
    official.save(tmp_path / "vqa.ckpt", "vqa")
    answers = [f"answer {i}" for i in range(official.ANSWERS)]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps({a: i for i, a in enumerate(answers)}))
    convert = ("convert", tmp_path / "vqa.ckpt")
    run(*convert, tmp_path / "preset", "--answers", file)
    assert (
        kbt.BridgeTowerVQA.from_preset(tmp_path / "preset").answers == answers
    )
    file.write_text(json.dumps(answers[:-1]))
    said = run(*convert, tmp_path / "other", "--answers", file, code=1)
    assert "6 answers, 7 classes" in said.err
    said = run(*convert, tmp_path / "other", "--task", "itm", code=1)
    assert "has vqa. Received: --task itm" in said.err
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
    words = ["check_published", "--images", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="would fetch hf://BridgeTower"):
        check_published.main()
    assert "000000039769.jpg" in capsys.readouterr().out
