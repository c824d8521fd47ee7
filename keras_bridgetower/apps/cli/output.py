"""How results are shown: a table, plain lines for a pipe, or JSON.

A terminal gets tables and progress bars by Rich. A pipe gets lines with tabs
and no heading. Warnings and progress go to stderr, results alone to stdout.
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
        as_json: bool, whether to print `value`.
        value: the result as plain values and paths.
        columns: tuple of str, the headings of a table.
        rows: list of tuples with one cell for each column.
    """
    if as_json:
        # In ASCII, which holds names of files that are not UTF-8 too.
        print(json.dumps(value, default=str))
    elif sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        print_lines("\t".join(map(cell, row)) for row in rows)


def print_lines(lines):
    """Print lines; what stdout cannot hold is escaped."""
    for line in lines:
        print(_held(line))


def _held(text):
    """A text whose characters stdout can encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def cell(value):
    """A value of a result as text on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5f}"
    return printable(str(value))


def warn(text):
    """Print a line on stderr that is no error."""
    print(printable(f"warning: {text}"), file=sys.stderr, flush=True)


def note(text):
    """Print a line on stderr that says how far the work is."""
    print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def status(words):
    """A spinner on the terminal while something is done."""
    with _console() as console:
        if console is None:
            yield
        else:
            with console.status(words):
                yield


@contextlib.contextmanager
def progress(words):
    """A progress bar on the terminal.

    Args:
        words: str, what is being done.

    Yields:
        Callable of the number that is done and, if it is known, of all.
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
    cells = [[Text(_held(cell(value))) for value in row] for row in rows]
    for place, column in enumerate(columns):
        # What a row is of stays whole; the columns after it are wrapped.
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
    """Rich's console on stderr if that is a terminal, else None.

    It has a file descriptor of its own, so it still reaches the terminal while
    what frameworks write to stderr is held back.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console

    with os.fdopen(os.dup(2), "w") as terminal:
        yield Console(file=terminal)
