"""Damaged Arrow tables and CIFAR pickles never crash a process."""

import os
import pathlib
import subprocess
import sys

import pytest
from builders import FASTEST

RUN = pathlib.Path(__file__).with_name("fuzz_run.py")
pytestmark = [
    FASTEST,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="it limits its own memory"
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed, count", [(0, 60), *((seed, 1000) for seed in range(1, 6))]
)
def test_mutants_are_read_or_refused(seed, count):
    """Each seed ends alone, so that a signal names it."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("easy_vqa")
    done = subprocess.run(
        [sys.executable, RUN, str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    # Negative after a signal, 1 after an error other than ValueError.
    assert done.returncode == 0, done.stderr[-3000:]
    message = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for kind in ("arrow", "cifar"):
        read, refused = map(int, message[kind].split())
        assert read + refused == count and min(read, refused) > count // 20
