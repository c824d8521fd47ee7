"""Test that `index` after kill -9 gives the same as an undisturbed run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from builders import FASTEST
from drawn_photos import PACKAGES
from drawn_photos import draw

pytestmark = FASTEST
HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKAGES)
def test_ten_kills_at_random_moments(tmp_path, kind):
    pytest.importorskip(PACKAGES[kind], reason="the extra `search`")
    photos = draw(tmp_path / "photos", copies=4)
    arguments = [photos, tmp_path, kind, 10, 1]
    done = subprocess.run(
        [sys.executable, HERE / "kill_run.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    whole, killed = results["whole"], results["killed"]
    assert whole["embedded"] == 40 and len(whole["rows"]) == 40
    for found in killed:
        assert found["embedded"] + found["unchanged"] == 40
        for row, wanted in zip(found["rows"], whole["rows"], strict=True):
            assert row[:2] == wanted[:2]
            assert row[2] == pytest.approx(wanted[2], abs=1e-6)
    assert any(found["was_killed"] for found in killed)
    # Some had written a part, which the next run kept.
    kept = [found["unchanged"] for found in killed]
    assert any(0 < n < 40 for n in kept), kept
