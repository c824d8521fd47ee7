"""Prints results as a table, as plain lines for a pipe, or as JSON.

A terminal gets tables and progress bars by Rich, a pipe lines with tabs and
no heading. Results go to stdout, warnings and progress to stderr.
"""

import contextlib
import json
import os
import sys

from keras_bridgetower.presets.errors import printable

# Characters of a first column that are not wrapped.
WHOLE = 40


def show(as_json, value, columns, rows):
    """Print a result.

    Args:
        as_json: bool, True to print `value`.
        value: the result as plain values and paths.
        columns: tuple of str, the headings of a table.
        rows: list of tuples with one cell for each column.
    """
    if as_json:
        # ASCII can represent file names that are not UTF-8.
        print(json.dumps(value, default=str))
    elif sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        print_lines("\t".join(map(cell, row)) for row in rows)


def print_lines(lines):
    """Print lines; characters that stdout cannot encode are escaped."""
    for line in lines:
        print(_encodable(line))


def _encodable(text):
    """Escape characters that stdout cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def cell(value):
    """Format a value of a result on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5f}"
    return printable(str(value))


def warn(text):
    """Print a warning on stderr."""
    print(printable(f"warning: {text}"), file=sys.stderr, flush=True)


def note(text):
    """Print a line about progress on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def status(words):
    """Show a spinner on the terminal."""
    with _console() as console:
        if console is None:
            yield
        else:
            with console.status(words):
                yield


@contextlib.contextmanager
def progress(words):
    """Show a progress bar on the terminal.

    Args:
        words: str, its description.

    Yields:
        Callable of the finished number and, if it is known, the total.
    """
    with _console() as console:
        if console is None:
            yield lambda done, total=None: None
            return
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(words, total=None)

            def update(done, total=None):
                more = {} if total is None else {"total": total}
                bar.update(task, completed=done, **more)

            yield update


def _print_table(columns, rows):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[Text(_encodable(cell(value))) for value in row] for row in rows]
    for place, column in enumerate(columns):
        # The first column is not wrapped, the others are.
        widest = max((len(row[place]) for row in cells), default=0)
        table.add_column(
            column,
            min_width=0 if place else min(widest, WHOLE),
            overflow="fold",
        )
    for row in cells:
        table.add_row(*row)
    Console().print(table)


@contextlib.contextmanager
def _console():
    """Yield Rich's console on stderr, or None if that is not a terminal.

    Its own file descriptor reaches the terminal even while stderr is
    redirected to hide the output of frameworks.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console

    with os.fdopen(os.dup(2), "w") as terminal:
        yield Console(file=terminal)
