"""Run the test suite on TensorFlow, JAX and PyTorch, and sum it up.

python tools/test_all.py              # what CI runs
python tools/test_all.py -m slow      # any arguments go to pytest
"""

import os
import pathlib
import re
import subprocess
import sys
import time

BACKENDS = ("tensorflow", "jax", "torch")
ROOT = pathlib.Path(__file__).parent.parent


def main():
    totals = dict.fromkeys(("passed", "failed", "skipped"), 0)
    broken = []
    for backend in BACKENDS:
        started = time.time()
        print(f"== {backend}", flush=True)
        counts, code = run(backend)
        for name in totals:
            totals[name] += counts.get(name, 0)
        # An error outside a test, or a run of no tests, is a failure too.
        totals["failed"] += counts.get("error", 0) + counts.get("errors", 0)
        if code:
            broken.append(backend)
        print(f"== {backend}: {time.time() - started:.0f} s", flush=True)
    if broken and not totals["failed"]:
        totals["failed"] = len(broken)
    print(", ".join(f"{count} {name}" for name, count in totals.items()))
    sys.exit(bool(broken))


def run(backend):
    """One pass of pytest: the counts of its last line, and its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-rf", *sys.argv[1:]],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = ""
    for line in process.stdout:
        if re.search(r"\d+ (passed|failed|error|skipped)", line):
            # Kept for the sum; its own summary would be taken for the whole.
            last = line
        else:
            print(line, end="", flush=True)
    code = process.wait()
    counts = re.findall(r"(\d+) (\w+)", last)
    return {name: int(count) for count, name in counts}, code


if __name__ == "__main__":
    main()
