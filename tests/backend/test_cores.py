"""Cores are those that a process may use, not those of the machine."""

import os

import pytest
from builders import ONE_BACKEND

from keras_bridgetower import cores

pytestmark = ONE_BACKEND


@pytest.mark.parametrize(
    "limit, local, wanted",
    [
        (None, 1, 16),
        ("max 100000", 1, 16),
        ("400000 100000", 1, 4),
        ("150000 100000", 1, 1),
        ("9900000 100000", 2, 8),
        (None, 64, 1),
    ],
)
def test_cores(monkeypatch, tmp_path, limit, local, wanted):
    """Of 16 in the affinity, a container's limit and local processes."""
    some = lambda process: set(range(16))  # noqa: E731
    monkeypatch.setattr(os, "sched_getaffinity", some, raising=False)
    monkeypatch.setattr(cores, "_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    if limit:
        cores._LIMIT.write_text(f"{limit}\n")
    assert cores.usable_cores() == wanted
