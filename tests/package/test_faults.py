"""No fault in a file goes through, or ends in an error of something else."""

import re

import faults_run
import pytest
from builders import ONE_BACKEND

pytestmark = ONE_BACKEND


@pytest.mark.parametrize("key", faults_run.FAULTS, ids=" ".join)
def test_a_fault(key):
    counts, wrong = faults_run.inject(key[0], faults_run.FAULTS[key], 8)
    assert wrong == [] and counts


def test_each_promise_names_a_test_that_exists():
    text = faults_run.PROMISES.read_text()
    assert faults_run.TABLE.read_text().endswith(text)
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = re.findall(r"`([\w/]*tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            code = (faults_run.PACKAGE.parent / file).read_text()
            assert re.search(rf"^(async )?def {test}\(", code, re.M), (
                file,
                test,
            )


@pytest.mark.slow
def test_the_table():
    text = faults_run.TABLE.read_text()
    assert faults_run.written(text, 150) == (text, [])
