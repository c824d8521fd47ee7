"""Whether this process is the command line, which imports Keras late.

`--help` needs no Keras, and environment variables that quiet a framework must
be set before it is imported. The package asks this while it is imported.
"""

import pathlib
import sys

COMMAND = "keras-bridgetower"
MODULE = "keras_bridgetower"


def is_command_line():
    """Whether `keras-bridgetower` or `python -m keras_bridgetower` runs."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        # While Python looks for the module, only this list has its name.
        given = sys.orig_argv
        return f"-m{MODULE}" in given or ("-m", MODULE) in zip(
            given, given[1:], strict=False
        )
    return pathlib.Path(program).stem == COMMAND
