"""`predict` over a folder gives what the task gives, and continues."""

import json
import sys

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import eager
from builders import vqa
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict import on_beam
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.presets.verbs import ANSWER

pytestmark = FASTEST
TEXTS = ["is it red?", "what is it?"]


@pytest.fixture(scope="module")
def task():
    keras.utils.set_random_seed(0)
    return eager(vqa())


@pytest.fixture
def folder(tmp_path):
    """Six pictures, one of which is none, and what is no picture."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i in range(6):
        pixels = rng.integers(0, 256, (24, 30, 3)).astype("uint8")
        path = folder / ("more" if i > 3 else "") / f"{i}.PNG"
        Image.fromarray(pixels).save(path)
    (folder / "3.PNG").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.png").mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def run(task, folder, out, texts=TEXTS, **kwargs):
    rows = prediction_rows.open_rows(folder, ("image", "text"), (), texts)
    predicting.predict(task, ANSWER, rows, out, batch_size=4, **kwargs)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_picture_with_every_text(task, folder, out):
    run(task, folder, out, top_k=2)
    header, *results = lines(out)
    assert header["predictions"]["task"] == "vqa"
    assert [r["row"] for r in results] == list(range(12))
    assert results[0]["image"] == "0.PNG"
    assert results[-1]["image"] == "more/5.PNG"
    good = [r for r in results if r["image"] != "3.PNG"]
    bad = [r["error"] for r in results if r["image"] == "3.PNG"]
    assert len(bad) == 2
    assert all("must be a readable image file" in error for error in bad)
    wanted = task.answer(
        [folder / r["image"] for r in good], [r["text"] for r in good], top_k=2
    )
    for result, found in zip(good, wanted, strict=True):
        (first, a), (second, b) = result["answers"]
        assert [first, second] == [name for name, _ in found]
        np.testing.assert_allclose([a, b], [s for _, s in found], atol=1e-5)


@pytest.mark.parametrize("cut", [0, 25])
def test_predict_continues_after_an_interruption(
    task, folder, out, tmp_path, cut, monkeypatch
):
    whole = tmp_path / "whole.jsonl"
    run(task, folder, whole)
    calls = []

    def answer(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return type(task).answer(task, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(task, "answer", answer)
        with pytest.raises(KeyboardInterrupt):
            run(task, folder, out)
    assert len(lines(out)) == 9
    # The last line may be half written.
    if cut:
        out.write_bytes(out.read_bytes()[:-cut])
    run(task, folder, out)
    # Batches may be cut otherwise: numbers agree to rounding.
    for a, b in zip(lines(out), lines(whole), strict=True):
        [[name, score]] = a.pop("answers", [["", 0]])
        wanted = [[name, pytest.approx(score, abs=1e-5)]]
        assert b.pop("answers", [["", 0]]) == wanted and a == b
    before = out.read_bytes()
    run(task, folder, out)
    assert out.read_bytes() == before


def test_output_of_another_run_is_rejected(task, folder, out):
    run(task, folder, out)
    before = out.read_bytes()
    keras.utils.set_random_seed(1)
    for other, changes, name in (
        (task, {"texts": TEXTS[:1]}, "rows"),
        (task, {"top_k": 2}, "top_k"),
        (eager(vqa()), {}, "model"),
    ):
        with pytest.raises(ValueError, match=f"differing in: {name}"):
            run(other, folder, out, **changes)
    assert out.read_bytes() == before
    for text in ("my notes", "my notes\n", '{"row": 0}\n', '{"predictions":3}'):
        out.write_text(text + "\n" * text.startswith("{"))
        text = out.read_text()
        with pytest.raises(ValueError, match="which is another file"):
            run(task, folder, out)
        assert out.read_text() == text
    out.write_bytes(before + before.splitlines(keepends=True)[1])
    with pytest.raises(ValueError, match="rows in their order"):
        run(task, folder, out)
    # A header that was cut off is written again.
    out.write_bytes(before[:20])
    run(task, folder, out)
    assert len(lines(out)) == 13


def test_settings_that_fail_for_every_row(task):
    mlm = kbt.BridgeTowerMaskedLM.from_preset("bridgetower_tiny_easy_mlm")
    tokens, blank = mlm.preprocessor.tokenizer.vocabulary_size(), "a <mask>?"
    for other, texts, top_k, message in (
        (task, (), 0, "from 1 to 4, the"),
        (task, (), 5, "from 1 to 4, the"),
        (task, ["what?", "  "], 1, "`text` must not"),
        (mlm, (), tokens + 1, "tokens of the vocabulary"),
        (mlm, [blank, "no blank here"], 1, r"`text` .*text\[1\]='no b"),
    ):
        with pytest.raises(ValueError, match=message):
            other.check_request(texts, top_k)
    mlm.check_request([blank], tokens)
    task.check_request(["no blank here"])


def test_beam_is_required(folder, tmp_path, monkeypatch):
    for name in ("apache_beam", "apache_beam.options.pipeline_options"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"keras-bridgetower\[beam\]"):
        on_beam.run("bridgetower_tiny_easy_vqa", "vqa", folder, tmp_path / "o")
    assert not (tmp_path / "o").exists()
