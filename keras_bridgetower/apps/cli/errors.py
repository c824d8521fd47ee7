"""What a command says when it fails, in one line, and its exit code."""

import typer

from keras_bridgetower.presets.errors import printable

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
# What the package and the system raise for wrong input.
EXPECTED = (ValueError, OSError, ImportError, RuntimeError)
# Typer brings its own click, or uses the one that is installed.
CLICK_ERROR = typer.BadParameter.__mro__[2]


class UsageError(ValueError):
    """The words of a command do not fit each other, or name nothing."""


def exit_code(error):
    """The exit code for an error, an int."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, UsageError):
        return WRONG_USAGE
    return getattr(error, "exit_code", FAILED)


def line(error, program):
    """One line that says what is wrong and how to mend it.

    Args:
        error: the exception.
        program: str, the command, which the line starts with.

    Returns:
        str. Empty where the help was printed because nothing was asked.
    """
    context = getattr(error, "ctx", None)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        said = "interrupted"
    elif isinstance(error, CLICK_ERROR):
        path = context.command_path if context else program
        message = error.format_message().rstrip(".")
        said = f"{message}. Try `{path} --help`." if message else ""
    elif isinstance(error, FileNotFoundError) and error.filename:
        said = f"There is no file or folder {error.filename!r}. Check the path."
    elif isinstance(error, EXPECTED):
        said = str(error) or type(error).__name__
    else:
        said = (
            f"{type(error).__name__}: {error}. This is a fault of the program: "
            "`--debug` shows where."
        )
    if not said:
        return ""
    # A message of a library may have several lines.
    return printable(f"{program}: {' '.join(said.split())}")
