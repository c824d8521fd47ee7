"""No fault in a file goes through, or ends in an error of something else."""

import faults_run
import pytest
from builders import ONE_BACKEND

pytestmark = ONE_BACKEND
ALL = faults_run.FAULTS | {
    (kind, f"{name}, without seal"): fault
    for (kind, name), fault in faults_run.UNSEALED.items()
}


@pytest.mark.parametrize("key", ALL, ids=" ".join)
def test_a_fault(key):
    counts, wrong = faults_run.inject(key[0], ALL[key], 8)
    if "without seal" in key[1]:
        wrong = [row for row in wrong if row[1] == "raw"]
    assert wrong == [] and counts


@pytest.mark.slow
def test_the_table(tmp_path):
    assert faults_run.write(tmp_path / "faults.md", 150) == []
    assert (tmp_path / "faults.md").read_text() == faults_run.TABLE.read_text()
