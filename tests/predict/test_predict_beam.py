"""Apache Beam: predictions and records equal the loop's, and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import record_rows
from builders import FASTEST
from drawn_photos import COLOURS
from drawn_photos import draw

pytest.importorskip("apache_beam", reason="the extra `beam`")

from keras_bridgetower.apps.predict import on_beam
from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import run as predicting
from keras_bridgetower.data.records import write
from keras_bridgetower.presets.verbs import BUILT_IN

pytestmark = FASTEST
VQA = "bridgetower_tiny_easy_vqa"


def table_of(folder, count, bad_every):
    """A table of questions, one in `bad_every` of which cannot be read."""
    draw(folder)
    image = {"image": "ellipse/red_0.png"}
    bad = [
        *({"image": i} for i in ("broken.png", "gone.png", "../outside.png")),
        *(image | {"text": None}, image | {"text": " "}),
    ]
    lines = []
    for number in range(count):
        colour = COLOURS[number % len(COLOURS)]
        shape = ("ellipse", "rectangle")[number // 5 % 2]
        text = ("what shape is it?", "what color is it?")[number % 2]
        row = {"image": f"{shape}/{colour}_0.png", "text": text}
        if number % bad_every == bad_every // 2:
            row |= bad[number // bad_every % len(bad)]
        lines.append(json.dumps({"id": f"row {number}", **row}) + "\n")
    table = folder / "table.jsonl"
    table.write_text("".join(lines))
    return table


def looped(table, out):
    """What the simple loop writes."""
    predicting.run(VQA, "vqa", table, out, top_k=2)
    return [json.loads(line) for line in out.read_text().splitlines()[1:]]


def made(out):
    """The rows of a run of Beam as the simple loop writes them."""
    from pyarrow import parquet

    found = []
    for row in parquet.read_table(out / "predictions").to_pylist():
        if "answers" in row:
            row["answers"] = [[a["answer"], a["score"]] for a in row["answers"]]
        found.append({k: v for k, v in row.items() if v is not None})
    for path in (out / "errors").iterdir():
        found += map(json.loads, path.read_text().splitlines())
    return sorted(found, key=lambda row: row["row"])


def check_equal(found, wanted):
    assert [row["row"] for row in found] == list(range(len(wanted)))
    for row, other in zip(found, wanted, strict=True):
        answers = [
            [name, pytest.approx(score, abs=1e-5)]
            for name, score in other.pop("answers", [])
        ]
        assert row.pop("answers", []) == answers and row == other


def test_in_this_process(tmp_path, on_disk):
    """By one worker; the results of all shards, and rows with errors."""
    table, out = table_of(tmp_path / "photos", 40, 8), tmp_path / "out"
    bad, _ = on_beam.run(VQA, "vqa", table, out, top_k=2, shard_rows=16)
    assert bad == 5
    wanted = looped(table, tmp_path / "loop.jsonl")
    assert sum("error" in row for row in wanted) == 5
    check_equal(made(out), wanted)
    named = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert named == [
        *(f"errors/0000{n}-of-00003.jsonl" for n in range(3)),
        "predictions.json",
        *(f"predictions/0000{n}-of-00003.parquet" for n in range(3)),
    ]
    assert all(map(on_disk, out.rglob("*.*")))
    # Again, one shard is made: the one that is missing.
    lost = out / "predictions/00001-of-00003.parquet"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    whole = lost.read_bytes()
    lost.unlink()
    (out / "predictions/_cut-00001-of-00003.parquet").write_bytes(whole[:9])
    bad, _ = on_beam.run(VQA, "vqa", table, out, top_k=2, shard_rows=16)
    assert bad == 5
    assert lost.read_bytes() == whole
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    assert {p for p in after if after[p] != before[p]} == {lost}
    # Other settings and other rows are another run.
    for change in ({"top_k": 1}, {"shard_rows": 20}):
        values = {"top_k": 2, "shard_rows": 16} | change
        [name] = change
        with pytest.raises(ValueError, match=f"differing in: {name}"):
            on_beam.run(VQA, "vqa", table, out, **values)


TWO_WORKERS = f"""
import sys
from keras_bridgetower.apps.predict import on_beam

options = ("direct_num_workers=2", "direct_running_mode=multi_processing")
told = {{"top_k": 2, "shard_rows": 100, "options": options}}
on_beam.run("{VQA}", "vqa", *sys.argv[1:], **told)
"""


def start(table, out):
    words = [sys.executable, "-c", TWO_WORKERS, table, out]
    # With a group of its own, which its workers belong to.
    return subprocess.Popen(words, start_new_session=True)


@pytest.mark.slow
def test_two_workers_killed_and_restarted(tmp_path):
    """2,000 rows, 1 % of them bad, by two processes, killed three times."""
    table, out = table_of(tmp_path / "photos", 2000, 100), tmp_path / "out"
    stood = set()
    for count in (1, 6, 12):
        running = start(table, out)
        while len(on_beam.finished(str(out))) < count:
            assert running.poll() is None
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        now = on_beam.finished(str(out))
        assert stood <= now and len(now) < 20
        stood = now
    assert start(table, out).wait(900) == 0
    check_equal(made(out), looped(table, tmp_path / "loop.jsonl"))


def test_every_result_has_a_column(tmp_path):
    """What each verb returns, as Parquet and back."""
    from pyarrow import parquet

    values = {
        "answers": [("blue", 0.5), ("red", 0.25)],
        "masks": [[("blue", 0.5)], [("a", 0.5), ("b", 0.25)]],
        "filled": "a blue circle",
        "score": 1.5,
        "embedding": [0.5, 0.25],
        "label": "neutral",
        "probabilities": {"neutral": 0.75, "entailment": 0.25},
        "true": False,
        "probability": 0.75,
        "grade": 2.5,
    }
    path = tmp_path / "a.parquet"
    for verb in BUILT_IN.values():
        result = {column: values[column] for column in verb.results}
        texts = {column: f"of {column}" for column in verb.columns}
        row = {"row": 7, "id": 5, **texts, **result}
        path.write_bytes(on_beam.to_parquet([row], verb))
        [found] = parquet.read_table(path).to_pylist()
        assert (found["row"], found["id"]) == (7, "5")
        assert {c: found[c] for c in texts} == texts
        for column, value in result.items():
            plain = found[column]
            if column == "masks":
                plain = [[tuple(t.values()) for t in mask] for mask in plain]
            elif column in ("answers", "probabilities"):
                plain = type(value)(tuple(t.values()) for t in plain)
            assert plain == value, column
        # A shard of bad rows alone has the same columns.
        path.write_bytes(on_beam.to_parquet([], verb))
        assert parquet.read_table(path).column_names == list(found)


def test_wrong_input(tmp_path):
    table, out = table_of(tmp_path / "photos", 4, 10), tmp_path / "out"
    for changes, message in (
        ({"options": ["direct_num_worker=2"]}, "direct_num_workers"),
        ({"out": table.parent}, "which holds other files"),
    ):
        values = {"preset": VQA, "source": table, "out": out} | changes
        with pytest.raises(ValueError, match=message):
            on_beam.run(task="vqa", **values)
    with output.locked(out):
        with pytest.raises(ValueError, match="one process at a time"):
            on_beam.run(VQA, "vqa", table, out)


def test_records_are_written_the_same(tmp_path):
    beam, here = (
        record_rows.write(tmp_path / name, run=run)
        for name, run in (("beam", write.on_beam("DirectRunner")), ("a", None))
    )
    assert beam == here
    names = [sorted(p.name for p in f.iterdir()) for f in tmp_path.iterdir()]
    assert names[0] == names[1]
