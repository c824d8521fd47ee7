"""The benchmark: its arithmetic, its tables, and a whole run."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image
from turns.rounds import ContenderFailed
from turns.rounds import Fresh
from turns.rounds import Rounds
from turns.rounds import Saved
from turns.rounds import distance
from turns.rounds import summary
from turns.works import Contender
from turns.works import Work

COMMAND = (
    pathlib.Path(__file__).parents[2] / "tools" / "benchmarks" / "benchmark.py"
)
pytestmark = FASTEST


@pytest.mark.parametrize(
    "pairs, ratios",
    [
        # Ratios 1, 2, 3, 4, 5, in another order.
        (
            [(2.0, 6.0), (1.0, 1.0), (1.0, 5.0), (4.0, 8.0), (0.5, 2.0)],
            [2.0, 3.0, 4.0],
        ),
        # A machine that becomes ten times slower changes no ratio.
        ([(1.0, 2.0), (1.0, 2.0), (10.0, 20.0), (10.0, 20.0)], [2.0] * 3),
    ],
)
def test_ratios_compare_consecutive_turns(pairs, ratios):
    found = summary(pairs)
    assert [found[k] for k in ("low", "ratio", "high")] == ratios
    medians = np.median(pairs, axis=0).tolist()
    assert [found["seconds"], found["reference"]] == medians


def test_distance_is_relative_to_the_largest_output():
    assert distance([[1.0, -3.0]], [[2.0, -4.0]]) == 0.25
    with pytest.raises(ValueError):
        distance([[1.0]], [[1.0, 2.0]])


@pytest.fixture
def saved(tmp_path):
    """A saved model that nobody reads."""
    files = Saved(tmp_path, "small")
    files.path("checkpoint").mkdir(parents=True)
    return files


def work(**programs):
    """Return a work whose contenders run code of Python."""
    contenders = [
        Contender(name, "keras_bridgetower", "reference", settings={"code": x})
        for name, x in programs.items()
    ]
    return Work("any", "program", contenders, fresh=True)


def turn(code, saved):
    """Take a turn of a contender that runs code."""
    one = work(one=code)
    return Fresh(one, one.contenders[0], saved).ask()


def test_rounds_compare_outputs_and_seconds(saved):
    programs = work(
        reference="""print('{"seconds": 3, "outputs": [[4, 2]]}')""",
        ours="""print('{"seconds": 2, "outputs": [[4, 3]], "x": 7}')""",
    )
    rounds = Rounds(programs, saved, repeats=2)
    (found,) = rounds.rows(programs.contenders[1], batches=[1], tokens=8)
    assert found == {
        **{"name": "ours", "beside": "reference", "batch": 1},
        **{"distance": 0.25, "seconds": 2, "reference": 3, "x": 7},
        **dict.fromkeys(("ratio", "low", "high"), 1.5),
    }


@pytest.mark.parametrize(
    "code, error",
    [
        ("raise ValueError('no such model')", "^ValueError: no such model$"),
        ("import os; os.kill(os.getpid(), 9)", "killed.*memory"),
    ],
)
def test_a_failed_process_gives_its_error(code, error, saved):
    with pytest.raises(ContenderFailed, match=error):
        turn(code, saved)


@pytest.mark.slow
def test_a_run_writes_table_csv_and_plot(tmp_path):
    names = ["torch float32", "transformers bfloat16"]
    process = subprocess.run(
        [
            *(sys.executable, COMMAND, "forward", "--size", "small"),
            *("--batches", "1", "2", "--repeats", "2"),
            *("--output", tmp_path, "--only", *names),
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
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
