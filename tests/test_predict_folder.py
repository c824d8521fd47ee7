"""The tool that runs a task over a folder or a table."""

import json
import sys

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import eager
from builders import retrieval
from builders import vqa
from PIL import Image

from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.predict import on_beam
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.tasks import by_name

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


def run(task, rows, out, name="vqa", **kwargs):
    return predicting.predict(
        task, BUILT_IN[name], rows, out, verbose=0, **{"batch_size": 4} | kwargs
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(folder, texts=TEXTS):
    return prediction_rows.open_rows(folder, ("image", "text"), (), texts)


def test_every_picture_with_every_text(task, folder, tmp_path):
    out = tmp_path / "out.jsonl"
    assert run(task, rows_of(folder), out, top_k=2) == 2
    header, *results = lines(out)
    assert header["predictions"]["task"] == "vqa"
    assert len(results) == 12
    assert [r["row"] for r in results] == list(range(12))
    assert (
        results[0]["image"] == "0.PNG" and results[-1]["image"] == "more/5.PNG"
    )
    good = [r for r in results if r["image"] != "3.PNG"]
    bad = [r["error"] for r in results if r["image"] == "3.PNG"]
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
    task, folder, tmp_path, cut, monkeypatch
):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run(task, rows_of(folder), whole)
    calls = []

    def answer(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return type(task).answer(task, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(task, "answer", answer)
        with pytest.raises(KeyboardInterrupt):
            run(task, rows_of(folder), out)
    assert len(lines(out)) == 9
    # The last line may be half written.
    if cut:
        out.write_bytes(out.read_bytes()[:-cut])
    run(task, rows_of(folder), out)
    # Batches may be cut otherwise: numbers agree to rounding.
    for a, b in zip(lines(out), lines(whole), strict=True):
        [[name, score]] = a.pop("answers", [["", 0]])
        assert [[name, pytest.approx(score, abs=1e-5)]] == b.pop(
            "answers", [["", 0]]
        )
        assert a == b
    before = out.read_bytes()
    assert run(task, rows_of(folder), out) == 0
    assert out.read_bytes() == before


def test_output_of_another_run_is_rejected(task, folder, tmp_path):
    out = tmp_path / "out.jsonl"
    run(task, rows_of(folder), out)
    before = out.read_bytes()
    with pytest.raises(ValueError, match="differing in: rows"):
        run(task, rows_of(folder, TEXTS[:1]), out)
    with pytest.raises(ValueError, match="differing in: top_k"):
        run(task, rows_of(folder), out, top_k=2)
    keras.utils.set_random_seed(1)
    with pytest.raises(ValueError, match="differing in: model"):
        run(eager(vqa()), rows_of(folder), out)
    assert out.read_bytes() == before
    for text in ("my notes", "my notes\n", '{"row": 0}\n'):
        out.write_text(text)
        with pytest.raises(ValueError, match="which is another file"):
            run(task, rows_of(folder), out)
        assert out.read_text() == text
    out.write_bytes(before + before.splitlines(keepends=True)[1])
    with pytest.raises(ValueError, match="rows in their order"):
        run(task, rows_of(folder), out)
    # A header that was cut off is written again.
    out.write_bytes(before[:20])
    run(task, rows_of(folder), out)
    assert len(lines(out)) == 13


TABLE = [
    b'{"image": "0.PNG", "text": "why?"}',
    b'{"image": "0.PNG", "text": "why',
    b'{"image": "0.PNG"}',
    b'{"image": "0.PNG", "text": 3}',
    b'["0.PNG", "why?"]',
    b'{"image": "0.PNG", "text": "\xff\xfe"}',
    b'{"image": "none.png", "text": "why?"}',
    b'{"image": "0.PNG", "text": " "}',
    b'{"image": "0.PNG", "text": "who?"}',
    b'{"image": null, "text": "why?"}',
    b'{"image": ["0.PNG"], "text": "why?"}',
    b'{"text": "why?"}',
]
WORDS = {
    1: "must be JSON in UTF-8",
    2: "must have the columns text",
    3: "must have the columns text",
    4: "must be a JSON object",
    5: "must be JSON in UTF-8",
    6: "FileNotFoundError",
    7: "`text` must not be empty",
    9: "must have the columns image",
    10: "must have the columns image",
    11: "must have the columns image",
}


def test_bad_lines_of_a_table(task, folder, tmp_path):
    path, out = folder / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"\n".join(TABLE))
    assert run(task, rows_of(path, ()), out) == 10
    results = lines(out)[1:]
    assert len(results) == 12
    for number, result in enumerate(results):
        assert result["row"] == number
        assert (WORDS.get(number) or "") in result.get("error", "")
        assert ("error" in result) == (number in WORDS)


def test_a_table_with_commas(task, folder, tmp_path):
    """Rows of a wrong length or encoding have errors, and ids are kept."""
    path, out = folder / "rows.CSV", tmp_path / "out.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbfid,text,image,more\n7,why?,0.PNG,x\n"
        b'10,"what, or\nwho?",1.PNG,y\n8,\xff,2.PNG,z\nx,only text\n'
        b"9,what, then?,0.PNG,z\n"
    )
    assert run(task, rows_of(path, ()), out) == 3
    results = lines(out)[1:]
    assert [r["id"] for r in results] == ["7", "10", "8", "x", "9"]
    assert results[1]["text"] == "what, or\nwho?"
    assert ["answers" in r for r in results] == [True, True, *[False] * 3]
    assert results[2]["error"] == "it must be UTF-8"
    assert "must have the columns image" in results[3]["error"]
    assert "Received: 1 more, the last of which is" in results[4]["error"]


def test_rows_with_a_second_text_and_without(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "a"}\n{"text": "b", "second_text": "c"}\n'
        '{"text": "d", "second_text": null}\n'
    )
    rows = prediction_rows.open_rows(path, ("text",), ("second_text",))
    *good, bad = (batches.with_pictures(row) for row in rows)
    assert "must have the columns second_text" in bad[0].error
    taken = [taken for _, taken in good]

    class Rates:
        def rate(self, batch_size, **values):
            return [values]

    found = batches.run_verb(Rates(), BUILT_IN["text_regressor"], taken, 1, 32)
    assert [row["grade"] for row in found] == [
        {"texts": ["a"]},
        {"texts": ["b"], "second_texts": ["c"]},
    ]


WRONG = [
    ("b.csv", "0.PNG,why?\n1.PNG,who?\n", r"b.csv .*: \['0.PNG', 'why"),
    ("b.csv", "image;text\n0.PNG;why?\n", "b.csv must be.*with commas"),
    ("b.csv", "file,text\n0.PNG,why?\n", "b.csv .* columns image, text"),
    ("b.csv", "", r"b.csv must be.*header.*Received: \[\]"),
    ("b.csv", 'image,text\n0.PNG,who?\n0.PNG,"why?\n', "b.csv.*from line 3"),
    ("b.csv", "image,text,text\na.png,what?,why?\n", "b.csv must name each"),
    ("b.csv", "image,text\n", "one row.*none in .*b.csv"),
    ("a.jsonl", "", "one row.*none in .*a.jsonl"),
    ("notes.txt", "", "SOURCE must be a folder, or a file"),
    ("none", None, "SOURCE must be a folder, or a file"),
    ("more", None, "a folder has pictures alone"),
]


@pytest.mark.parametrize("name, content, message", WRONG)
def test_wrong_sources(folder, name, content, message):
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        rows_of(folder / name, ())


def test_folders_without_pictures(folder):
    with pytest.raises(ValueError, match="at least one row"):
        rows_of(folder / "folder.png")


def test_at_most_three_batches_are_in_memory(folder):
    held = []
    rows = prediction_rows.open_rows(folder, ("image",))

    def counted():
        for row in rows:
            held.append(row)
            yield row

    read = batches.read_ahead(counted(), 2, batches.with_pictures)
    for number, batch in enumerate(read, 1):
        assert len(batch) == 2 and len(held) <= 2 * (number + 1)
    assert len(held) == 6


def test_another_task(folder, tmp_path):
    task, out = eager(retrieval()), tmp_path / "out.jsonl"
    run(task, rows_of(folder, ["a cat"]), out, "retrieval")
    score = lines(out)[1]["score"]
    wanted = task.score(folder / "0.PNG", "a cat")
    np.testing.assert_allclose(score, wanted, atol=1e-5)


def test_beam_is_required(folder, tmp_path, monkeypatch):
    for name in ("apache_beam", "apache_beam.options.pipeline_options"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"keras-bridgetower\[beam\]"):
        on_beam.run("bridgetower_tiny_easy_vqa", "vqa", folder, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_preset_by_name(folder, tmp_path):
    def run(out, **kwargs):
        preset = "bridgetower_tiny_easy_vqa"
        rows = {"on_rows": lambda *_: None, **kwargs}
        return predicting.run(preset, "vqa", folder, out, **rows)

    out = tmp_path / "out.jsonl"
    bad, _ = run(out, text=["what shape is it?"])
    assert bad == 1 and len(lines(out)) == 7
    for path, kwargs, error, words in (
        (out, {}, ValueError, "a folder has pictures alone"),
        (tmp_path / "none/out", {}, ValueError, "in an existing folder"),
        (folder, {}, IsADirectoryError, "a folder"),
    ):
        with pytest.raises(error, match=words):
            run(path, **kwargs)


TINY = {
    "masked_lm": ("mlm", "a <mask> circle."),
    "embed_images": ("contrastive", None),
}


@pytest.mark.parametrize("name", TINY)
def test_tiny_presets(name, folder, tmp_path):
    preset, text = TINY[name]
    cls, verb = by_name.verbs()[name]
    rows = prediction_rows.open_rows(
        folder, tuple(verb.inputs), (), [text] if text else []
    )
    task = eager(cls.from_preset(f"bridgetower_tiny_easy_{preset}"))
    out = tmp_path / "out.jsonl"
    assert run(task, rows, out, name) == 1
    assert len(lines(out)) == 7
