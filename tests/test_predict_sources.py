"""What the tool that predicts reads, leaves out, and keeps to one process."""

import json
import os
import subprocess
import sys
import threading
from unittest import mock

import keras
import pytest
from builders import FASTEST
from PIL import Image

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.presets.verbs import ANSWER
from keras_bridgetower.tasks import by_name

pytestmark = FASTEST


class Answers:
    """A task that answers with the width of the picture."""

    weights, head_values, answers = (), {}, ("8",)
    # A saved head: nothing to tell of it.
    new_heads, answering_heads = mock.Mock(), ()
    # What it computes in; it reads no text, and pictures as they are.
    backbone = keras.layers.Identity(dtype="float32")

    def needed_preprocessor(self):
        return mock.Mock(image_converter=None, tokenizer=None)

    def check_request(self, texts, top_k):
        pass

    def answer(self, images, questions, top_k, batch_size):
        return [[(str(image.width), 1.0)] for image in images]


def run(rows, out):
    return predicting.predict(Answers(), ANSWER, rows, out, verbose=0)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jfif", "c"):
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    return folder


def rows_of(source, **options):
    columns = ("image", "text")
    texts = ["what?"] if source.is_dir() else []
    return prediction_rows.open_rows(source, columns, (), texts, **options)


def table(folder, *images):
    path = folder / "rows.jsonl"
    rows = [json.dumps({"image": str(i), "text": "what?"}) for i in images]
    path.write_text("\n".join(rows))
    return path


def test_pictures_are_detected_by_content(folder):
    Image.new("RGB", (8, 8)).save(folder / "d.avif")
    (folder / "P1 notes").write_text("P1 is what this text begins with")
    (folder / "notes.txt").write_text("no picture")
    (folder / "more.txt").write_text("")
    (folder / "damaged.jpg").write_text("")
    os.symlink("c", folder / "linked")
    # In a fixed order, whatever the order on the disk.
    for name in ("n2", "n0", "n3", "n1"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "e.png")
    (folder.parent / "elsewhere").mkdir()
    os.symlink(folder.parent / "elsewhere", folder / "other")
    rows = rows_of(folder)
    found = [row.values["image"] for row in rows]
    assert found == [
        *("a.png", "b.jfif", "c", "damaged.jpg", "linked"),
        *(f"n{i}/e.png" for i in range(4)),
    ]
    wanted = {".avif": 1, ".txt": 2, "file without suffix": 1}
    assert dict(+rows.passed_over) == wanted | {"linked folder": 1}


def test_skipped_files_are_reported(folder, monkeypatch):
    (folder / "d.avif").write_bytes(b"\0\0\0 ftypavif")
    monkeypatch.setattr(by_name, "open_verb", lambda *_: Answers())
    out = folder.parent / "out.jsonl"
    report = predicting.run(
        "preset", "vqa", folder, out, ["what?"], on_rows=lambda *_: None
    )
    assert list(predicting.report(*report)) == [
        "0 rows could not be read; each has a line with its error.",
        "skipped, not a picture in a known format: 1 .avif",
    ]


@pytest.mark.parametrize("change", ["content", "time", "gone"])
def test_changed_pictures_are_noticed(folder, tmp_path, change):
    out = tmp_path / "out.jsonl"
    run(rows_of(folder), out)
    assert run(rows_of(folder), out) == 0
    before = out.read_bytes()
    about = (folder / "a.png").stat()
    if change == "gone":
        (folder / "a.png").unlink()
        (folder / "a.png").mkdir()
        source = table(folder, "a.png", "b.jfif", "c")
    elif change == "content":
        Image.linear_gradient("L").save(folder / "a.png")
        os.utime(folder / "a.png", ns=(about.st_atime_ns, about.st_mtime_ns))
        assert (folder / "a.png").stat().st_size != about.st_size
    else:
        os.utime(folder / "a.png", ns=(about.st_atime_ns, 1))
    source = folder if change != "gone" else source
    with pytest.raises(ValueError, match="differing in: .*pictures"):
        run(rows_of(source), out)
    assert out.read_bytes() == before


def test_output_without_state_of_pictures_is_rejected(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    run(rows_of(folder), out)
    header, *rest = lines(out)
    del header["predictions"]["pictures"]
    out.write_text("\n".join(map(json.dumps, [header, *rest])) + "\n")
    with pytest.raises(ValueError, match="differing in: pictures"):
        run(rows_of(folder), out)
    for held in ("3", '"a"', "[]"):
        out.write_text(f'{{"predictions":{held}}}\n')
        with pytest.raises(ValueError, match="which is another file"):
            run(rows_of(folder), out)


def test_table_pictures_must_be_below_its_folder(folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    os.symlink("a.png", folder / "good.png")
    away = ["../secret.png", tmp_path / "secret.png", "link.png"]
    source = table(folder, "a.png", "good.png", folder / "a.png", *away)
    out = tmp_path / "out.jsonl"
    assert run(rows_of(source), out) == 3
    for result in lines(out)[4:]:
        assert "below the table's folder" in result["error"]
    assert run(rows_of(source, outside=True), tmp_path / "all.jsonl") == 0


def test_one_process_at_a_time_writes(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    inside, go_on = threading.Event(), threading.Event()

    class Waits(Answers):
        def answer(self, **inputs):
            inside.set()
            assert go_on.wait(60)
            return super().answer(**inputs)

    first = threading.Thread(
        target=predicting.predict,
        args=(Waits(), ANSWER, rows_of(folder), out),
        kwargs={"verbose": 0},
    )
    first.start()
    assert inside.wait(60)
    try:
        with pytest.raises(ValueError, match="one process at a time"):
            run(rows_of(folder), out)
    finally:
        go_on.set()
        first.join()
    assert [line.get("row") for line in lines(out)] == [None, 0, 1, 2]


HELD = """
import os, sys
from keras_bridgetower.apps.predict import output
file = output.PredictionFile(sys.argv[1], {"task": "vqa"})
file.__enter__()
file.write([{"row": 0}])
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_lock_of_a_killed_process_is_released(tmp_path):
    out = tmp_path / "out.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-c", HELD, out]
    assert subprocess.run(call, env=environment).returncode == -9
    with output.PredictionFile(out, {"task": "vqa"}) as file:
        assert file.rows_written == 1
