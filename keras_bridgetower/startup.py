"""Detects command-line and server processes, which import Keras late or never.

`--help` needs no Keras, and environment variables that quiet a framework must
be set before it is imported. The package asks this while it is imported.
"""

import contextlib
import importlib
import os
import pathlib
import re
import sys
import tempfile

COMMAND = "keras-bridgetower"
# Modules that are run as programs.
PROGRAMS = ("keras_bridgetower", "keras_bridgetower.apps.exported")
# Set in the environment of the server's processes. The one that answers HTTP
# needs no Keras.
SERVER = "KERAS_BRIDGETOWER_SERVER"
# The environment variable that names modules with your own tasks.
OWN_MODULES = "KERAS_BRIDGETOWER_MODULES"
# Lines that TensorFlow's C++ logs before a level applies. 0 shows all.
LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LOGGED = re.compile(
    rb"[IW]\d{4} [\d:.]+ +\d+ \S+\.cc:\d+\] |WARNING: All log messages before"
)


def imports_late():
    """Return True if importing the package must not import Keras."""
    return SERVER in os.environ or is_command_line()


def is_command_line():
    """Return True in `keras-bridgetower` and `python -m` with a program."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        # While Python looks for the module, only this list has its name.
        return any(w.removeprefix("-m") in PROGRAMS for w in sys.orig_argv)
    return pathlib.Path(program).stem == COMMAND


@contextlib.contextmanager
def without_log_lines():
    """Leave out what TensorFlow logs while it is imported.

    All else that is written to stderr meanwhile appears afterwards.
    """
    imported = "tensorflow" in sys.modules or sys.stderr is None
    if imported or os.environ.setdefault(LEVEL, "3") == "0":
        yield
        return
    with tempfile.TemporaryFile() as kept, os.fdopen(os.dup(2), "wb") as err:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(err.fileno(), 2)
            kept.seek(0)
            err.writelines(line for line in kept if not _LOGGED.match(line))


def import_own_modules():
    """Import the modules with your own tasks, heads and encoders.

    The command line, the server and the page do so before they open presets.
    `OWN_MODULES` names them, with commas between.
    """
    for name in os.environ.get(OWN_MODULES, "").split(","):
        if name.strip():
            importlib.import_module(name.strip())
