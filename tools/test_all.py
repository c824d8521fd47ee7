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
# (tests/suite.py). Four processes on two cores took 1.5 times as long as two
# and two, as threads of some wait busily for each other.
ROUNDS = (("torch",), ("jax", "tensorflow"))
ROOT = pathlib.Path(__file__).parent.parent


def main():
    results = []
    for passes in ROUNDS:
        with concurrent.futures.ThreadPoolExecutor(len(passes)) as pool:
            results += pool.map(run, passes)
    for backend, last, _ in results:
        print(f"{backend}: {last}")
    # An error outside a test, or a run of no tests, is a failure too.
    sys.exit(any(code for *_, code in results))


def run(backend):
    """Run pytest; return the backend, the last line, and the exit code."""
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
        print(f"[{backend}] {line}", end="", flush=True)
        if re.search(r"\d+ (passed|failed|error|skipped)", line):
            last = line.strip()
    code = process.wait()
    print(f"[{backend}] ended after {time.time() - started:.0f} s", flush=True)
    return backend, last, code


if __name__ == "__main__":
    main()
