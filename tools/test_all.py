"""Run the test suite on TensorFlow, JAX and PyTorch, and sum it up.

python tools/test_all.py                        # as CI does
python tools/test_all.py -m slow                # arguments go to pytest
python tools/test_all.py --keras 3.16.0rc1 ...  # with another version of Keras

The environment of another version stays in `.venv-keras-VERSION`.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import venv

# Backends whose passes run side by side. PyTorch's pass also runs the tests of
# no backend: it takes as long as the other two together and has two processes
# (tests/conftest.py). Four processes on two cores took 1.5 times as long as two
# and two, as threads of some wait busily for each other.
ROUNDS = (("torch",), ("jax", "tensorflow"))
ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = "tensorflow,jax,torch,orbax,data,viz,examples,dev"


def main():
    if sys.argv[1:2] == ["--keras"]:
        if len(sys.argv) < 3 or sys.argv[2].startswith("-"):
            sys.exit("--keras must be followed by a version, such as 3.16.0rc1")
        sys.exit(with_keras(*sys.argv[2:]))
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


def with_keras(version, *arguments):
    """Run this script in an environment with a version of Keras.

    pip rejects a version below the project's minimum.
    """
    home = ROOT / f".venv-keras-{version}"
    folder = home / ("Scripts" if os.name == "nt" else "bin")
    python, installed = str(folder / "python"), home / "installed"
    if not installed.exists():
        venv.create(home, clear=True, with_pip=True)
        packages = "-e", f"{ROOT}[{EXTRAS}]", f"keras=={version}"
        install = (python, "-m", "pip", "install", "-q", *packages)
        subprocess.run(install, cwd=ROOT, check=True)
        installed.touch()
    found = "import keras; print('keras', keras.__version__, keras.__file__)"
    subprocess.run([python, "-c", found], cwd=ROOT, check=True)
    command = [python, __file__, *arguments]
    return subprocess.run(command, cwd=ROOT).returncode


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
