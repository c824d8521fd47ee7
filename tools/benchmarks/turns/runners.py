"""Processes of contenders: one for many turns, or a new one for each turn."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

BENCHMARKS = pathlib.Path(__file__).parents[1]
# Where the models that are compared with each other are built.
TESTS = BENCHMARKS.parents[1] / "tests"

_ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt)\b")


class ContenderFailed(RuntimeError):
    """A contender's process ended before it answered."""


def environment(backend, home):
    """The variables of a process.

    Args:
        backend: str, the value of KERAS_BACKEND.
        home: path of the folder where converted checkpoints are kept.

    Returns:
        dict.
    """
    paths = [str(BENCHMARKS), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # On a GPU two processes share the memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


class Resident:
    """A process that loads the model once and then takes many turns.

    Args:
        module: str, module of this package with `LIBRARIES`.
        contender: `Contender`.
        saved: `Saved`.
    """

    def __init__(self, module, contender, saved):
        self.log = tempfile.TemporaryFile("w+")
        fields = json.dumps(dataclasses.asdict(contender))
        program = [sys.executable, "-m", "turns.process", module]
        self.process = subprocess.Popen(
            [*program, str(saved.folder), fields],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(contender.backend, saved.home),
            text=True,
        )
        # Seconds until the model is there, and what it runs on.
        self.about = self._answer()
        self._first = {}

    def first(self, turn):
        """Compile and run once: `first` seconds and `outputs`."""
        key = tuple(turn.values())
        if key not in self._first:
            self._first[key] = self.ask(turn)
        return self._first[key]

    def ask(self, turn):
        """One turn: its `seconds`, and what else was measured."""
        try:
            self.process.stdin.write(json.dumps(turn) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # What it wrote last is in its log.
        return self._answer()

    def close(self):
        self.process.communicate()
        self.log.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise ContenderFailed(_end_of(self.log, self.process.wait()))
        return json.loads(line)


class Fresh:
    """A new process for each turn, timed from its start to its last line.

    A process that measures itself says its `seconds`, which count instead.

    Args:
        module: str, module of this package with `command`.
        contender: `Contender`.
        saved: `Saved`.
    """

    about = {}

    def __init__(self, module, contender, saved):
        program = importlib.import_module(f"turns.{module}")
        self.command = program.command(contender, saved)
        self.environment = environment(contender.backend, saved.home)

    def first(self, turn):
        """One turn that is not counted: it brings files into memory."""
        return self.ask(turn)

    def ask(self, turn):
        """One turn: its `seconds`, and what else was measured."""
        last, seconds = "", 0.0
        with tempfile.TemporaryFile("w+") as log:
            started = time.perf_counter()
            with subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                text=True,
            ) as process:
                for line in process.stdout:
                    last, seconds = line, time.perf_counter() - started
            if process.returncode:
                raise ContenderFailed(_end_of(log, process.returncode))
        return {"seconds": seconds, **json.loads(last)}

    def close(self):
        """Nothing is open between turns."""


def _end_of(log, code):
    """The error at the end of a process's log, or the signal that ended it."""
    if code == -signal.SIGKILL:
        return "it was killed, as the system does where memory is short"
    log.seek(0)
    return error_in(log.read())


def error_in(text):
    """The line of a log that names the last error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["it ended without a word"])[-1]
