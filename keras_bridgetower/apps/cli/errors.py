"""Error messages of commands, in one line, and exit codes."""

import typer

from keras_bridgetower.presets.errors import printable

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
# Errors of the package and the system for wrong input.
EXPECTED = (ValueError, OSError, ImportError, RuntimeError)
# Typer may have its own copy of click.
CLICK_ERROR = typer.BadParameter.__mro__[2]


class UsageError(ValueError):
    """Arguments of a command that are wrong or contradict each other."""


def exit_code(error):
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, UsageError):
        return WRONG_USAGE
    return getattr(error, "exit_code", FAILED)


def line(error, program):
    """Describe an error in one line; empty if the help was printed.

    Args:
        error: the exception.
        program: str, the command, with which the line starts.
    """
    context = getattr(error, "ctx", None)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        text = "interrupted"
    elif isinstance(error, CLICK_ERROR):
        path = context.command_path if context else program
        message = error.format_message().rstrip(".")
        text = f"{message}. Try `{path} --help`." if message else ""
    elif isinstance(error, EXPECTED):
        text = str(error) or type(error).__name__
    else:
        text = (
            f"{type(error).__name__}: {error}. This is a bug: `--debug` shows "
            "where."
        )
    if not text:
        return ""
    # A message of a library may have several lines.
    return printable(f"{program}: {' '.join(text.split())}")
