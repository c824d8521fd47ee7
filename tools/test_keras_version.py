"""Run the test suite with a given version of Keras, in a new environment.

python tools/test_keras_version.py 3.16.0rc1
python tools/test_keras_version.py 3.16.0rc1 tests/test_keras_private.py

What follows the version goes to pytest. The environment stays in
`.venv-keras-VERSION`, and a second run starts at once; pip's cache is used.
"""

import os
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = "tensorflow,jax,torch,orbax,data,viz,examples,dev"


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(f"{__doc__}\nReceived: {sys.argv[1:]}")
    version, *arguments = sys.argv[1:]
    home = ROOT / f".venv-keras-{version}"
    folder = home / ("Scripts" if os.name == "nt" else "bin")
    python = str(folder / "python")
    installed = home / "installed"
    if not installed.exists():
        venv.create(home, clear=True, with_pip=True)
        # A version below the project's floor is refused here.
        run(python, "-m", "pip", "install", "-q", *requirements(version))
        installed.touch()
    found = "import keras; print('keras', keras.__version__, keras.__file__)"
    run(python, "-c", found)
    run(python, str(ROOT / "tools" / "test_all.py"), *arguments)


def requirements(version):
    return "-e", f"{ROOT}[{EXTRAS}]", f"keras=={version}"


def run(*command):
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
