"""The table of a rehearsal, and on request a whole rehearsal."""

import os
import pathlib
import subprocess
import sys

import pytest
import rehearsal_table
from builders import FASTEST

TOOL = pathlib.Path(rehearsal_table.__file__).with_name("rehearse.py")
FACTS = {
    "updates": 4,
    "accumulation": 2,
    "length": 4,
    "rows_of_batch": 4,
    "peak": 0.1,
    "warmup": 2,
}


def story(first=0):
    """Return the report of a host without a fault, from a batch on."""
    rates = [0.0, 0.05, 0.1, 0.05]
    batches = [
        {
            "batch": batch,
            "loss": 1 / (batch + 1),
            "rate": rates[batch // 2],
            # The first update has the rate 0.
            "weights": f"{max(0, (batch - 1) // 2)}",
            "sum": 1.0,
        }
        for batch in range(first, 8)
    ]
    return {
        "code": 0,
        "waited": 0.0,
        "error": "",
        "batches": batches,
        "read": [],
        "scores": ["test: 1"],
    }


def runs():
    """Those of two hosts, all of it right."""
    made = {
        "whole": [story(), story()],
        "one killed": [story(3), story(3)],
        "lost": [story(8), story(8)],
        "mended": [story(5), story(5)],
    }
    for host in (0, 1):
        rows = range(host, 16, 2)
        made["whole"][host]["read"] = [[e, r] for e in (0, 1) for r in rows]
        made["lost"][host]["error"] = "a.CheckpointError: all must agree"
    made["one killed"][0]["code"] = made["one killed"][1]["code"] = 1
    return made


# By the row that tells it: a run, a host, and what is changed there or in its
# last batch.
SPOILT = {
    "runs to its end": ("whole", 1, "code", 1),
    "learning rate of each update": ("whole", 1, "rate", 0.06),
    "rows of an epoch": ("whole", 1, "read", [[0, 0], [1, 1]]),
    "all hosts killed, resumed": ("one killed", 1, "loss", 0.13),
    "host 1 killed": ("one killed", 0, "waited", None),
    "no checkpoint on host 1": ("lost", 0, "error", "OSError: none"),
    "put right, resumed": ("mended", 1, "batches", story()["batches"]),
    "weights at the end": ("mended", 1, "weights", "9"),
    "scores at the end": ("mended", 1, "scores", ["test: 2"]),
}


def rows(run=None, host=None, key=None, value=None, batch=-1):
    """Return the rows of the table, by their check."""
    made = runs()
    if run:
        outcome = made[run][host]
        place = outcome if key in outcome else outcome["batches"][batch]
        place[key] = value
    found = rehearsal_table.rows(made, FACTS, 60, 10)
    return {row["check"]: row for row in found}


@FASTEST
def test_each_fault_is_told_in_its_row():
    assert all(row["right"] for row in rows().values())
    for check, change in SPOILT.items():
        found = rows(*change)
        wrong = {name for name, row in found.items() if not row["right"]}
        assert check in wrong and len(wrong) <= 2, (check, wrong)
    for seconds, right in ((9.9, True), (10.1, False)):
        found = rows("one killed", 0, "waited", seconds)
        assert found["host 1 killed"]["right"] is right
    twice = runs()["whole"][1]["read"] * 2
    assert not rows("whole", 1, "read", twice)["rows of an epoch"]["right"]
    row = rows("whole", 0, "weights", "8", batch=4)["updates"]
    assert row["found"].endswith("3 of 3 updates, and after 1 other batches")
    report = {"recipe": "x", "backend": "jax", "hosts": 2, "seconds": 3.0}
    table = rehearsal_table.table([{**report, **FACTS, "rows": [row]}])
    assert "| updates | ✗ weights moved" in table and "| JAX |" in table


@pytest.mark.slow
def test_a_rehearsal(tmp_path):
    pytest.importorskip("easy_vqa")
    subprocess.run(
        [sys.executable, str(TOOL), "vqa_base", "--folder", str(tmp_path)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=True,
    )
