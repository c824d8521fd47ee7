"""What the tool that predicts refuses, and says, of settings, OUT and rows."""

import json
import os

import pytest
from builders import FASTEST
from drawn_photos import jpeg_of_scans
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.tasks import by_name

pytestmark = FASTEST
PRESET = "bridgetower_tiny_easy_vqa"
GOOD = '{"image": "a.png", "text": "what shape is it?"}'


@pytest.fixture(scope="module", autouse=True)
def opened(request):
    """The preset is opened once, whatever is refused."""
    task = by_name.open_verb(PRESET, "vqa")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_name, "open_verb", lambda preset, name: task)
        yield task


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    return folder


def run(source, out, **kwargs):
    return predicting.run(
        PRESET, "vqa", source, out, on_rows=lambda *_: None, **kwargs
    )


def run_table(folder, *rows, **kwargs):
    """What a run says of a table, and the lines that it writes."""
    source, out = folder / "rows.jsonl", folder.parent / "out.jsonl"
    source.write_text("\n".join(rows))
    bad, _ = run(source, out, **kwargs)

    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    _, *results = [
        json.loads(line, parse_constant=refused)
        for line in out.read_text().splitlines()
    ]
    assert [result["row"] for result in results] == list(range(len(rows)))
    return bad, results


def test_finished_run_counts_errors_of_the_file(folder):
    rows = (GOOD, "{}", '{"image": "a.png", "text": "error", "id": "error"}')
    bad, results = run_table(folder, *rows)
    assert bad == 1 and ["error" in r for r in results] == [False, True, False]
    assert run_table(folder, *rows) == (bad, results)
    # Half of it is left to do.
    out = folder.parent / "out.jsonl"
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:3]))
    assert run_table(folder, *rows)[0] == 1


def with_id(value):
    return f'{{"id": {value}, {GOOD[1:]}'


TWICE = "the key '{}' occurs twice in an object"
NO_NUMBER = "must be JSON, which has no NaN"
SPOILT = {
    "[" * 100_000: "must be JSON",
    GOOD.replace("}", ', "text": "what color is it?"}'): TWICE.format("text"),
    with_id('{"a": 1, "a": 1}'): TWICE.format("a"),
    **{
        line: NO_NUMBER
        for value in ("NaN", "-Infinity", "1e999", "[[NaN]]")
        for line in (
            with_id(value),
            f'{{"image": "a.png", "text": {value}}}',
        )
    },
}


def test_bad_json_spoils_one_row(folder):
    bad, results = run_table(folder, "\ufeff" + GOOD, *SPOILT, GOOD)
    first, *spoilt, last = results
    assert bad == len(SPOILT) and "answers" in first and "answers" in last
    for result, words in zip(spoilt, SPOILT.values(), strict=True):
        assert words in result["error"]


def test_ids_as_deep_as_python_reads(folder):
    deep = with_id("[" * 980 + "]" * 980)
    bad, (first, last) = run_table(folder, deep, GOOD)
    # How deep that is depends on how deep its own calls are.
    assert bad == ("error" in first) and "answers" in last


def test_settings_that_fail_for_every_row(folder, tmp_path, opened):
    mlm = kbt.BridgeTowerMaskedLM.from_preset("bridgetower_tiny_easy_mlm")
    tokens = mlm.preprocessor.tokenizer.vocabulary_size()
    answers, blank = len(opened.answers), "what <mask> is it?"
    for task, texts, top_k, message in (
        (opened, (), 0, f"from 1 to {answers}, the"),
        (opened, (), answers + 1, f"from 1 to {answers}, the"),
        *(
            (opened, ["what?", text], 1, "`text` must not")
            for text in ("", "  ", "a\0b")
        ),
        (mlm, (), tokens + 1, "tokens of the vocabulary"),
        (mlm, [blank, "no blank here"], 1, r"`text` .*text\[1\]='no b"),
    ):
        with pytest.raises(predicting.UnfitSetting, match=message):
            predicting.check_request(task, texts, top_k)
    with (
        pytest.warns(UserWarning, match="1 of 1 texts cut"),
        pytest.raises(predicting.UnfitSetting, match="<mask> .* within"),
    ):
        predicting.check_request(mlm, ["so " * 200 + blank])
    predicting.check_request(mlm, [blank], tokens)
    predicting.check_request(opened, ["no blank here"])
    with pytest.raises(predicting.UnfitSetting):
        run(folder, tmp_path / "out.jsonl", text=[""])
    assert os.listdir(tmp_path) == ["photos"]


def test_out_must_be_a_plain_file(folder, tmp_path, monkeypatch):
    def opened(*_):
        raise AssertionError("a model is opened")

    monkeypatch.setattr(by_name, "open_verb", opened)
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "pipe", tmp_path / "link")
    before = sorted(os.listdir(tmp_path))
    refused = {
        tmp_path / "pipe": "a named pipe",
        tmp_path / "link": "a named pipe",
        "/dev/null": "a file of the kernel",
        "/dev/stdout": "a file of the kernel",
        "/proc/self/fd/1": "a file of the kernel",
        folder: "a folder",
    }
    for out, kind in refused.items():
        error = IsADirectoryError if out == folder else ValueError
        with pytest.raises(error, match="OUT must be a plain file, or") as told:
            run(folder, out, text=["what?"])
        assert str(told.value).endswith(kind)
        assert not os.path.exists(f"{out}.lock")
    assert sorted(os.listdir(tmp_path)) == before


def test_rejected_output_gets_no_lock(folder, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("my notes\n")
    with pytest.raises(ValueError, match="which is another file"):
        run(folder, out, text=["what?"])
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "photos"]
    with pytest.raises(ValueError, match="differing in: rows"):
        with output.PredictionFile(tmp_path / "out", {"rows": 1}):
            (tmp_path / "out.lock").unlink()
        output.PredictionFile(tmp_path / "out", {"rows": 2}).__enter__()
    assert not (tmp_path / "out.lock").exists()


def test_lock_files_are_not_counted_as_skipped(folder):
    out = folder / "out.jsonl"
    for _ in range(2):
        assert run(folder, out, text=["what?"]) == (0, {})
    assert (folder / "out.jsonl.lock").exists()


def test_output_is_not_part_of_the_source(folder, tmp_path):
    (folder / "below").mkdir()
    out = folder / "below" / "out.jsonl"
    (folder / "link").symlink_to(out.parent)
    (folder / "out.jsonl").write_text("of another run")
    found = {".jsonl": 1, "linked folder": 1}
    for given in (out, folder / "link" / "out.jsonl", out):
        assert run(folder, given, text=["what?"]) == (0, found)
    # Where many machines write, OUT is a folder.
    (out.parent / "errors").mkdir()
    (out.parent / "errors" / "0.png").write_text("no picture")
    rows = prediction_rows.open_rows(folder, ("image",), out=out.parent)
    assert [row.values["image"] for row in rows] == ["a.png"]
    assert rows.passed_over == found


def test_long_cells_and_blank_ones(folder, tmp_path):
    source, out = folder / "rows.csv", tmp_path / "out.jsonl"
    long = "a" * 200_000
    source.write_text(
        f"image,text,more\na.png,{long},x\n,what?,x\n  ,what?,x\n"
        f"a.png,what?,{long}\n"
    )
    assert run(source, out)[0] == 3
    _, *results = map(json.loads, out.read_text().splitlines())
    assert "must have at most 100,000 characters" in results[0]["error"]
    for result in results[1:3]:
        assert result["error"].startswith("its image must not be empty")
    assert "answers" in results[3]


def test_jpeg_with_many_scans_spoils_one_row(folder):
    (folder / "scans.jpg").write_bytes(jpeg_of_scans(101))
    rows = [
        json.dumps({"image": name, "text": "what shape is it?"})
        for name in ("a.png", "scans.jpg")
    ]
    bad, (good, refused) = run_table(folder, *rows)
    assert bad == 1
    assert "answer" in str(good)
    assert "at most 100 scans" in refused["error"]
