"""Run the test suite on TensorFlow, JAX and PyTorch, and sum it up.

python tools/test_all.py                        # as CI does
python tools/test_all.py -m slow                # arguments go to pytest
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

# Backends whose passes run side by side. PyTorch's pass also runs the tests of
# no backend: it takes as long as the other two together and has two processes
# (tests/conftest.py). Four processes on two cores took 1.5 times as long as two
# and two, as threads of some wait busily for each other.
ROUNDS = (("torch",), ("jax", "tensorflow"))
ROOT = pathlib.Path(__file__).parent.parent


def main():
    started = time.time()
    totals = dict.fromkeys(("passed", "failed", "skipped"), 0)
    results = []
    for passes in ROUNDS:
        with concurrent.futures.ThreadPoolExecutor(len(passes)) as pool:
            results += pool.map(run, passes)
    for counts, code in results:
        # An error outside a test, or a run of no tests, is a failure too.
        bad = sum(counts.pop(k, 0) for k in ("failed", "error", "errors"))
        totals["failed"] += bad or int(code != 0)
        totals["passed"] += counts.get("passed", 0)
        totals["skipped"] += counts.get("skipped", 0)
    backends = ", ".join(name for passes in ROUNDS for name in passes)
    print(f"{backends} in {time.time() - started:.0f} seconds")
    print(", ".join(f"{count} {name}" for name, count in totals.items()))
    sys.exit(totals["failed"] > 0)


def run(backend):
    """Run pytest; return the counts of its last line, and its exit code."""
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-um", "pytest", "-q", "-rf"] + sys.argv[1:],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = ""
    for line in process.stdout:
        if re.search(r"\d+ (passed|failed|error|skipped)", line):
            # Not printed: it is not the summary of all.
            last = line
        else:
            print(f"[{backend}] {line}", end="", flush=True)
    code = process.wait()
    seconds = time.time() - started
    print(f"[{backend}] ended after {seconds:.0f} seconds", flush=True)
    counts = re.findall(r"(\d+) (\w+)", last)
    return {name: int(count) for count, name in counts}, code


if __name__ == "__main__":
    main()
