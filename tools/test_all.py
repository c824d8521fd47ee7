"""Run the test suite on TensorFlow, JAX and PyTorch, and sum it up.

python tools/test_all.py                        # as CI does, with notebooks
python tools/test_all.py -m slow                # arguments go to pytest
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

BACKENDS = ("torch", "jax", "tensorflow")
# Passes, two at a time. PyTorch's runs the tests of no backend, too: it takes
# as long as all others together, and has two processes, as said in
# tests/suite.py. Four processes on two cores took 1.5 times as long as two and
# two, as threads of some wait busily for each other.
ROUNDS = (("torch",), ("jax", "tensorflow", "notebooks"))
# Two more compile for other backends or devices, a minute each.
NOTEBOOKS = [
    *("-m", "slow", "-k", "not tpu and not three", "-n", "0"),
    "tests/examples/test_notebooks.py",
]
ROOT = pathlib.Path(__file__).parent.parent


def main():
    results, arguments = [], sys.argv[1:]
    for passes in ROUNDS:
        # With arguments, those of the suite alone.
        passes = [name for name in passes if name in BACKENDS or not arguments]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results += pool.map(run, passes)
    for name, last, _ in results:
        print(f"{name}: {last}")
    # An error outside a test, or a run of no tests, is a failure too.
    sys.exit(any(code for *_, code in results))


def run(name):
    """Run pytest; return the name, the last line, and the exit code."""
    started = time.time()
    arguments = sys.argv[1:] if name in BACKENDS else NOTEBOOKS
    backend = name if name in BACKENDS else "torch"
    process = subprocess.Popen(
        [sys.executable, "-um", "pytest", "-q", "-rf", *arguments],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = ""
    for line in process.stdout:
        print(f"[{name}] {line}", end="", flush=True)
        if re.search(r"\d+ (passed|failed|error|skipped)", line):
            last = line.strip()
    code = process.wait()
    print(f"[{name}] ended after {time.time() - started:.0f} s", flush=True)
    return name, last, code


if __name__ == "__main__":
    main()
