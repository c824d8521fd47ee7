"""Detects command-line and server processes, which import Keras late or never.

`--help` needs no Keras, and environment variables that quiet a framework must
be set before it is imported. The package asks this while it is imported.
"""

import importlib
import os
import pathlib
import sys

COMMAND = "keras-bridgetower"
# Modules that are run as programs.
PROGRAMS = ("keras_bridgetower", "keras_bridgetower.apps.exported")
# Set in the environment of the server's processes. The one that answers HTTP
# needs no Keras.
SERVER = "KERAS_BRIDGETOWER_SERVER"
# The environment variable that names modules with your own tasks.
OWN_MODULES = "KERAS_BRIDGETOWER_MODULES"


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


def import_own_modules():
    """Import the modules with your own tasks, heads and encoders.

    The command line, the server and the page do so before they open presets.
    `OWN_MODULES` names them, with commas between.
    """
    for name in os.environ.get(OWN_MODULES, "").split(","):
        if name.strip():
            importlib.import_module(name.strip())
