"""The benchmark: its arithmetic, its tables, and one whole run of it."""

import csv
import pathlib
import subprocess
import sys

import pytest
from builders import FASTEST
from PIL import Image
from turns import report
from turns.contenders import Contender
from turns.ratios import distance
from turns.ratios import summary
from turns.rounds import Rounds
from turns.runners import ContenderFailed
from turns.runners import Fresh
from turns.runners import error_in
from turns.saved import Saved
from turns.works import WORKS
from turns.works import Work

COMMAND = (
    pathlib.Path(__file__).parents[1] / "tools" / "benchmarks" / "benchmark.py"
)
pytestmark = FASTEST


def row(**values):
    """A row as a run gives it."""
    return {
        "name": "torch float32",
        "beside": "transformers float32",
        "size": "small",
        "side": 64,
        "batch": 1,
        "seconds": 0.5,
        "reference": 1.0,
        "ratio": 2.0,
        "low": 1.5,
        "high": 2.5,
        **values,
    }


def test_ratios_and_quartiles():
    # Ratios 1, 2, 3, 4, 5, in another order.
    pairs = [(2.0, 6.0), (1.0, 1.0), (1.0, 5.0), (4.0, 8.0), (0.5, 2.0)]
    assert summary(pairs) == {
        "seconds": 1.0,
        "reference": 5.0,
        "ratio": 3.0,
        "low": 2.0,
        "high": 4.0,
    }


def test_quartiles_of_two_turns_lie_between_them():
    found = summary([(1.0, 1.0), (1.0, 2.0)])
    assert [found[k] for k in ("low", "ratio", "high")] == [1.25, 1.5, 1.75]


def test_ratios_are_of_turns_that_followed_each_other():
    """A machine that became ten times slower changes no ratio."""
    found = summary([(1.0, 2.0), (1.0, 2.0), (10.0, 20.0), (10.0, 20.0)])
    assert found["low"] == found["ratio"] == found["high"] == 2.0


def test_distance_is_relative_to_the_largest_wanted_output():
    assert distance([[1.0, -3.0]], [[2.0, -4.0]]) == 0.25
    with pytest.raises(ValueError):
        distance([[1.0]], [[1.0, 2.0]])


def test_a_table_says_once_what_all_rows_share():
    table = report.markdown([row(), row(batch=4)], WORKS["forward"])
    assert table.splitlines() == [
        "|  | batch | seconds | reference's seconds | ratio | quartiles |",
        "|---|---|---|---|---|---|",
        "| torch float32 | 1 | 0.5 | 1 | 2.00 | 1.50 - 2.50 |",
        "| torch float32 | 4 | 0.5 | 1 | 2.00 | 1.50 - 2.50 |",
        "",
        "Compared with transformers float32, small, 64 px.",
    ]


def test_a_table_shows_what_else_a_work_measures():
    rows = [row(gigabytes=2.5, **{"gigabytes loaded": 1.0}), row(name="other")]
    lines = report.markdown(rows, WORKS["memory"]).splitlines()
    assert "| gigabytes |" in lines[0] and "loaded" not in lines[0]
    assert lines[2].endswith("| 2.5 |") and lines[3].endswith("|  |")


def test_every_reference_is_a_contender_of_its_work():
    for work in WORKS.values():
        named = work.named()
        assert len(named) == len(work.contenders)
        assert {c.beside for c in work.contenders} <= named.keys()
        assert not all(c.is_reference_only() for c in work.contenders)


def test_what_is_missing_is_left_out():
    named = WORKS["forward"].named()
    ours, runtime = named["torch float32"], named["openvino int8"]
    assert ours.left_out_because(None) is None
    assert ours.left_out_because("a GPU") is None
    assert runtime.left_out_because("a GPU") is not None


def test_the_error_of_a_process_is_found_before_what_follows_it():
    log = "start\nValueError: wrong shape\n  [1. 2.]]\n"
    assert error_in(log) == "ValueError: wrong shape"
    assert error_in("one\ntwo\n") == "two"


@pytest.fixture
def saved(tmp_path):
    """A saved model of which nothing is read."""
    made = Saved(tmp_path, "small")
    made.path("checkpoint").mkdir(parents=True)
    return made


def saying(name, code, beside="reference"):
    """A contender whose process runs some code of Python."""
    return Contender(name, "keras_bridgetower", beside, settings={"code": code})


def test_rounds_compare_what_processes_say(saved):
    contenders = [
        saying("reference", """print('{"seconds": 3, "outputs": [[4, 2]]}')"""),
        saying(
            "ours", """print('{"seconds": 2, "outputs": [[4, 3]], "x": 7}')"""
        ),
    ]
    work = Work("any", "starts", Fresh, contenders)
    with Rounds(work, saved, repeats=2) as rounds:
        (found,) = rounds.rows(contenders[1], batches=[1], tokens=8)
    assert found == {
        "name": "ours",
        "beside": "reference",
        "batch": 1,
        "distance": 0.25,
        "seconds": 2,
        "reference": 3,
        "ratio": 1.5,
        "low": 1.5,
        "high": 1.5,
        "x": 7,
    }


def test_a_process_is_timed_until_its_last_line(saved):
    code = "import time; time.sleep(0.2); print('{}')"
    turn = Fresh("starts", saying("slow", code), saved).ask({})
    assert turn["seconds"] > 0.2


def test_a_process_that_fails_says_why(saved):
    failing = saying("failing", "raise ValueError('no such model')")
    with pytest.raises(ContenderFailed, match="^ValueError: no such model$"):
        Fresh("starts", failing, saved).ask({})


def test_a_process_that_is_killed_is_told_apart(saved):
    code = "import os, sys; sys.stderr.write('a'); os.kill(os.getpid(), 9)"
    with pytest.raises(ContenderFailed, match="killed.*memory"):
        Fresh("starts", saying("killed", code), saved).ask({})


def test_unknown_names_are_refused():
    done = run("forward", "--only", "torch float8")
    assert done.returncode == 2
    assert "--only must be some of" in done.stderr
    assert "'torch float8'" in done.stderr


@pytest.mark.slow
def test_a_run_writes_table_csv_and_plot(tmp_path):
    names = ["torch float32", "transformers bfloat16"]
    done = run(
        *("forward", "--size", "small", "--batches", "1", "2"),
        *("--repeats", "2", "--output", tmp_path, "--only", *names),
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["name"], r["batch"]) for r in rows} == {
        (name, batch) for name in names for batch in "12"
    }
    for values in rows:
        assert values["side"] == "64" and values["device"] == "cpu"
        low, ratio, high = (float(values[k]) for k in ("low", "ratio", "high"))
        assert 0 < low <= ratio <= high
        # The same weights: bfloat16 keeps about three digits.
        tolerance = 1e-5 if values["name"] == "torch float32" else 0.1
        assert float(values["distance"]) < tolerance
    text = (tmp_path / "README.md").read_text()
    assert "## Forward pass: matching" in text and "Left out" not in text
    assert all(text.count(f"| {name} |") == 2 for name in names)
    assert "torch" in text and "--size small" in text
    with Image.open(tmp_path / "forward.png") as picture:
        assert picture.size[0] == 880


def run(*arguments):
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
