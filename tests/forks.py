"""Python processes that begin as forks of one that has imported what they need.

Imports take most of the time of a short process. What a user's process does
from its start to its end is seen in `test_ending`, `test_examples` and others
that start processes of their own. So do all on TensorFlow and JAX, which
do not promise to work after a fork.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

import launch

# The server of forks, which runs nothing itself: devices and threads would not
# survive a fork. PyTorch is imported before TensorFlow, see `around_tests.py`.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["torch", "keras_hub", "keras_bridgetower.training.train", "sklearn"]
)


def started(commands, environments):
    """One process for each command and environment, as `launch.started`.

    Args:
        commands: list of lists, a script and its arguments.
        environments: list of dicts, what each has beside the own variables.
    """
    if launch.BACKEND != "torch":
        return launch.started(commands, environments)
    return [
        Fork([str(word) for word in command], environment)
        for command, environment in zip(commands, environments, strict=True)
    ]


class Fork:
    """A running script, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, command, environment):
        handle, name = tempfile.mkstemp(prefix="errors-of-a-fork-")
        os.close(handle)
        self._errors = pathlib.Path(name)
        self._process = _SERVER.Process(
            target=_run, args=(command, dict(environment), name)
        )
        self._process.start()

    @property
    def returncode(self):
        return self._process.exitcode

    def communicate(self, timeout=None):
        """Wait for the end: no output, and what it wrote to stderr."""
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        errors = self._errors.read_text() if self._errors.exists() else ""
        self._errors.unlink(missing_ok=True)
        return "", errors

    def kill(self):
        self._process.kill()


def _run(command, environment, errors):
    with open(errors, "w") as file:
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.argv = command
    sys.path.insert(0, str(pathlib.Path(command[0]).parent))
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        # `multiprocessing` leaves them out.
        atexit._run_exitfuncs()
