"""Test that `index` after kill -9 gives the same as an undisturbed run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import PACKAGES
from drawn_photos import draw

pytestmark = FASTEST
HERE = pathlib.Path(__file__).parent


def killed_runs(tmp_path, kind, kills, seed=0):
    pytest.importorskip(PACKAGES[kind], reason="the extra `search`")
    photos = draw(tmp_path / "photos", copies=4)
    arguments = [photos, tmp_path, kind, kills, seed]
    done = subprocess.run(
        [sys.executable, HERE / "kill_run.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(results):
    whole = results["whole"]
    assert whole["embedded"] == 40 and len(whole["rows"]) == 40
    for found in results["killed"]:
        assert found["embedded"] + found["unchanged"] == 40
        named = [row[:2] for row in found["rows"]]
        assert named == [row[:2] for row in whole["rows"]]
        np.testing.assert_allclose(
            [row[2] for row in found["rows"]],
            [row[2] for row in whole["rows"]],
            atol=1e-6,
        )
    assert any(found["was_killed"] for found in results["killed"])


@pytest.mark.slow
def test_two_kills(tmp_path):
    check(killed_runs(tmp_path, "lancedb", 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKAGES)
def test_ten_kills_at_random_moments(tmp_path, kind):
    results = killed_runs(tmp_path, kind, 10, seed=1)
    check(results)
    # Some had written a part, which the next run kept.
    kept = [found["unchanged"] for found in results["killed"]]
    assert any(0 < n < 40 for n in kept), kept
