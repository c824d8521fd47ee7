"""`predict` reads a folder or a table, and writes what the task gives.

It notices what results depend on, and its batches are as large as asked.
"""

import functools
import itertools
import json
import os
import subprocess
import sys
import threading
from unittest import mock

import every_task
import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import SIDE
from builders import clip
from builders import eager
from builders import roberta
from builders import vqa
from drawn_photos import jpeg_of_scans
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps import predict
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.predict import batches
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.presets.verbs import BUILT_IN
from keras_bridgetower.tasks import inference
from keras_bridgetower.tasks.identity import model_checksum

pytestmark = FASTEST
TEXTS = ["is it red?", "what is it?"]
PRESET = "bridgetower_tiny_easy_vqa"


class Answers:
    """A task that answers with the width of the picture."""

    weights, head_values = (), {}
    # What it computes in; it reads no text, and pictures as they are.
    backbone = keras.layers.Identity(dtype="float32")

    def needed_preprocessor(self):
        return mock.Mock(image_converter=None, tokenizer=None)

    def answer(self, images, questions, top_k, batch_size):
        return [[(str(image.width), 1.0)] for image in images]


def run(source, out, task=None, outside=False, **options):
    texts = ["what?"] if source.is_dir() else []
    columns = ("image", "text")
    rows = prediction_rows.open_rows(source, columns, (), texts, outside)
    predicting.predict(task or Answers(), ANSWER, rows, out, **options)
    return output.count_errors(out)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jfif", "c"):
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def table(folder, *images):
    path = folder / "rows.jsonl"
    rows = [json.dumps({"image": str(i), "text": "what?"}) for i in images]
    path.write_text("\n".join(rows))
    return path


def test_pictures_are_detected_by_content(folder):
    Image.new("RGB", (8, 8)).save(folder / "d.avif")
    (folder / "P1 notes").write_text("P1 is what this text begins with")
    (folder / "notes.txt").write_text("no picture")
    (folder / "damaged.jpg").write_text("")
    os.symlink("c", folder / "linked")
    # In a fixed order, whatever the order on the disk.
    for name in ("n2", "n0", "n3", "n1"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "e.png")
    (folder.parent / "elsewhere").mkdir()
    os.symlink(folder.parent / "elsewhere", folder / "other")
    rows = prediction_rows.open_rows(folder, ("image",))
    assert [row.values["image"] for row in rows] == [
        *("a.png", "b.jfif", "c", "damaged.jpg", "linked"),
        *(f"n{i}/e.png" for i in range(4)),
    ]
    wanted = {".avif": 1, ".txt": 1, "file without suffix": 1}
    assert dict(+rows.passed_over) == wanted | {"linked folder": 1}


@pytest.mark.parametrize("change", ["content", "time", "gone"])
def test_changed_pictures_are_noticed(folder, out, change):
    source, picture = table(folder, "a.png", "b.jfif", "c"), folder / "a.png"
    run(source, out)
    assert run(source, out) == 0
    before, about = out.read_bytes(), picture.stat()
    if change == "gone":
        picture.unlink()
    elif change == "content":
        Image.linear_gradient("L").save(picture)
        os.utime(picture, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert picture.stat().st_size != about.st_size
    else:
        os.utime(picture, ns=(about.st_atime_ns, 1))
    with pytest.raises(ValueError, match="differing in: .*pictures"):
        run(source, out)
    assert out.read_bytes() == before


def test_table_pictures_must_be_below_its_folder(folder, out, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    os.symlink("a.png", folder / "good.png")
    away = ["../secret.png", tmp_path / "secret.png", "link.png"]
    source = table(folder, "a.png", "good.png", folder / "a.png", *away)
    assert run(source, out) == 3
    for result in lines(out)[4:]:
        assert "below the table's folder" in result["error"]
    assert run(source, tmp_path / "all.jsonl", outside=True) == 0


def test_one_process_at_a_time_writes(folder, out):
    inside, go_on = threading.Event(), threading.Event()

    class Waits(Answers):
        def answer(self, **inputs):
            inside.set()
            assert go_on.wait(60)
            return super().answer(**inputs)

    first = threading.Thread(target=run, args=(folder, out, Waits()))
    first.start()
    assert inside.wait(60)
    try:
        with pytest.raises(ValueError, match="one process at a time"):
            run(folder, out)
    finally:
        go_on.set()
        first.join()
    assert [line.get("row") for line in lines(out)] == [None, 0, 1, 2]


HELD = """
import os, sys
from keras_bridgetower.apps.predict import output
with output.prediction_file(sys.argv[1], {"task": "vqa"}) as (_, append):
    append([{"row": 0}])
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_lock_of_a_killed_process_is_released(out):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-c", HELD, out]
    assert subprocess.run(call, env=environment).returncode == -9
    with output.prediction_file(out, {"task": "vqa"}) as (done, _):
        assert done == 1


def with_id(value):
    return f'{{"id": {value}, "image": "a.png", "text": "why?"}}'


# Lines of a table, and words of the error of each.
TABLE = {
    "\ufeff" + with_id("7"): None,
    '{"image": "a.png", "text": "why': "must be JSON in UTF-8",
    '{"image": "a.png"}': "must have the columns text",
    '{"image": "a.png", "text": "\udcff\udcfe"}': "must be JSON in UTF-8",
    '{"image": "none.png", "text": "why?"}': "must be a file that exists",
    '{"image": "scans.jpg", "text": "why?"}': "at most 100 scans",
    "[" * 100_000: "must be JSON",
    with_id('{"a": 1, "a": 1}'): "the key 'a' occurs twice in an object",
    with_id("1e999"): "1e999 is not a number in JSON",
    with_id('"error"'): None,
}


def test_bad_lines_of_a_table_spoil_no_other(folder, out):
    (folder / "scans.jpg").write_bytes(jpeg_of_scans(101))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(TABLE), errors="surrogateescape")
    for _ in range(2):
        assert run(path, out) == len(TABLE) - 2
    results = lines(out)[1:]
    assert [result["row"] for result in results] == list(range(len(TABLE)))
    for result, words in zip(results, TABLE.values(), strict=True):
        assert ("error" in result) == (words is not None)
        assert (words or "") in result.get("error", "")
    assert results[0]["id"] == 7


def test_a_table_with_commas(folder, out):
    """Rows of a wrong length or encoding have errors, and ids are kept."""
    path = folder / "rows.CSV"
    path.write_bytes(
        b"\xef\xbb\xbfid,text,image,more\n7,why?,a.png,x\n"
        b'10,"what, or\nwho?",c,' + b"y" * 200_000 + b"\n"
        b"8,\xff,c,z\nx,only text\n9,what, then?,a.png,z\n"
    )
    assert run(path, out) == 3
    results = lines(out)[1:]
    assert [r["id"] for r in results] == ["7", "10", "8", "x", "9"]
    assert results[1]["text"] == "what, or\nwho?"
    errors = [result.get("error", "") for result in results]
    wanted = ["", "", "must be UTF-8", "the columns image", "as many cells"]
    for error, words in zip(errors, wanted, strict=True):
        assert words in error and bool(words) == bool(error)


WRONG = [
    ("b.csv", "a.png,why?\nc,who?\n", r"b.csv .*: \['a.png', 'why"),
    ("b.csv", 'image,text\na.png,who?\na.png,"why?\n', "b.csv.*from line 3"),
    ("notes.txt", "", "SOURCE must be a folder, or a file"),
    ("more", None, "a folder has pictures alone"),
]


@pytest.mark.parametrize("name, content, message", WRONG)
def test_wrong_sources(folder, name, content, message):
    (folder / "more").mkdir()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        prediction_rows.open_rows(folder / name, ("image", "text"))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "notes"])
def test_out_must_be_a_plain_file_of_predictions(folder, tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes").write_text("my notes")
    places = {"device": "/dev/null", "folder": folder}
    with pytest.raises((ValueError, IsADirectoryError)):
        run(folder, places.get(kind, tmp_path / kind))
    assert (tmp_path / "notes").read_text() == "my notes"


def test_at_most_three_batches_are_in_memory():
    held = []

    def counted():
        for item in range(6):
            held.append(item)
            yield item

    read = batches.read_ahead(counted(), 2, lambda item: item)
    for number, batch in enumerate(read, 1):
        assert batch == [2 * number - 2, 2 * number - 1]
        assert len(held) <= 2 * (number + 1)
    assert len(held) == 6


def test_every_picture_with_every_text(folder, out):
    """The results of a real task; what is no picture has an error."""
    (folder / "damaged.png").write_bytes(b"")
    task = eager(vqa())
    rows = prediction_rows.open_rows(folder, ("image", "text"), (), TEXTS)
    predicting.predict(task, ANSWER, rows, out, top_k=2, batch_size=3)
    header, *results = lines(out)
    assert header["predictions"]["task"] == "vqa"
    asked = [(row["row"], row["image"], row["text"]) for row in results]
    names = ("a.png", "b.jfif", "c", "damaged.png")
    pairs = itertools.product(names, TEXTS)
    assert asked == [(n, *pair) for n, pair in enumerate(pairs)]
    *good, one, other = results
    for bad in (one, other):
        assert "must be a readable image file" in bad["error"]
    images = [folder / row["image"] for row in good]
    wanted = task.answer(images, [row["text"] for row in good], top_k=2)
    for result, found in zip(good, wanted, strict=True):
        for (name, score), answer in zip(result["answers"], found, strict=True):
            assert (name, pytest.approx(score, abs=1e-5)) == answer


class Interrupted(Answers):
    calls = 0

    def answer(self, **inputs):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().answer(**inputs)


@pytest.mark.parametrize("cut", [0, 25])
def test_predict_continues_after_an_interruption(folder, out, tmp_path, cut):
    whole = tmp_path / "whole.jsonl"
    source = table(folder, *["a.png", "gone.png", "b.jfif"] * 4)
    run(source, whole, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        run(source, out, Interrupted(), batch_size=4)
    assert len(lines(out)) == 9
    # The last line may be half written.
    if cut:
        out.write_bytes(out.read_bytes()[:-cut])
    for _ in range(2):
        run(source, out, batch_size=4)
        assert out.read_bytes() == whole.read_bytes()


class OfOtherWeights(Answers):
    head_values = {"answers": "others"}


def test_output_of_another_run_is_rejected(folder, out):
    source = table(folder, "a.png", "c")
    run(source, out)
    before = out.read_bytes()
    for other, path, changes, name in (
        (Answers(), folder, {}, "rows"),
        (Answers(), source, {"top_k": 2}, "top_k"),
        (OfOtherWeights(), source, {}, "model"),
    ):
        with pytest.raises(ValueError, match=f"differing in: .*{name}"):
            run(path, out, other, **changes)
    assert out.read_bytes() == before
    for text in ("my notes\n", '{"row": 0}\n'):
        out.write_text(text)
        with pytest.raises(ValueError, match="which is another file"):
            run(source, out)
        assert out.read_text() == text
    out.write_bytes(before + before.splitlines(keepends=True)[1])
    with pytest.raises(ValueError, match="rows in their order"):
        run(source, out)
    # A header that was cut off is written again.
    out.write_bytes(before[:20])
    run(source, out)
    assert out.read_bytes() == before


def test_beam_is_required(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, f"{predict.__name__}.on_beam", False)
    monkeypatch.delattr(predict, "on_beam", raising=False)
    words = ["predict", PRESET, "vqa", folder]
    words += [tmp_path / "o", "--text", "what?", "--runner", "DirectRunner"]
    assert main.main([*map(str, words)]) == 1
    assert "'keras-bridgetower[beam]'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_checksum_covers_all_weights(dtype):
    """Not position ids, which some backends keep as int64."""
    kept = {"dtype": "float32" if dtype == "int8" else dtype}
    task = vqa(image_encoder=clip(**kept), text_encoder=roberta(**kept), **kept)
    if dtype == "int8":
        task.quantize(dtype)
    first = model_checksum(task)
    for name in (dtype, "int32"):
        weight = next(w for w in task.weights if str(w.dtype) == name)
        before = keras.ops.copy(weight.value)
        weight.assign(weight.value + 1)
        assert (model_checksum(task) == first) == (name == "int32")
        weight.assign(before)
    assert model_checksum(task) == first


def test_headers_differ_in_what_was_changed(monkeypatch):
    opened = functools.partial(kbt.BridgeTowerVQA.from_preset, PRESET)
    task, rows = opened(), mock.Mock(sum="", pictures="")

    def header(task):
        return output.make_header(task, BUILT_IN["vqa"], rows, 1)

    before = header(task)

    def changed(task):
        return {k for k, v in header(task).items() if before[k] != v}

    for values, more in (
        # The size of pictures also changes the positions of the model.
        ({"image_size": 32, "image_mode": "hf"}, {"model"}),
        ({"sequence_length": 12, "dtype": "mixed_bfloat16"}, set()),
    ):
        assert changed(opened(**values)) == {*values} | more
    for part, name, value, told in (
        ("image_converter", "mean", (0.5, 0.5, 0.5), "image_mean"),
        ("image_converter", "crop_pct", 0.9, "image_crop_pct"),
        ("tokenizer", "get_vocabulary", lambda: ["a"], "tokenizer"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(getattr(task.preprocessor, part), name, value)
            assert changed(task) == {told}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_is_one_forward_pass(name, monkeypatch):
    """Also one above the verbs' own size, 32."""
    named = "contrastive" if name.startswith("embed") else name
    task = every_task.make(named)
    task.compile(run_eagerly=True)
    sizes, filled = [], inference.filled

    def counted(x, size):
        sizes.append(size)
        return filled(x, size)

    monkeypatch.setattr(inference, "filled", counted)
    values = {c: "a <mask> circle" for c in BUILT_IN[name].inputs}
    rows = [prediction_rows.Row(i, values, "", None) for i in range(34)]
    pixels = np.zeros((SIDE, SIDE, 3), "uint8")
    monkeypatch.setattr(batches, "open_picture", lambda *_: pixels)
    [made] = batches.run_rows(task, BUILT_IN[name], rows, 1, 34)
    assert len(made) == 34 and not any("error" in row for row in made)
    assert set(sizes) == {34}
