"""Counts the processor cores that a process may use."""

import os
import pathlib

# Microseconds of all cores in a period, or "max", and the period.
_LIMIT = pathlib.Path("/sys/fs/cgroup/cpu.max")


def usable_cores():
    """Return how many cores this process may use, at least 1.

    Those of its affinity (else of the machine) or of its container, by version
    2 of control groups. Processes that `torchrun` starts here share them.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    if _LIMIT.exists():
        most, period = _LIMIT.read_text().split()
        count = count if most == "max" else min(count, int(most) // int(period))
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
