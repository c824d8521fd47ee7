"""Prints results as a table on a terminal, as tabs in a pipe, or as JSON.

Results go to stdout, warnings and progress to stderr.
"""

import contextlib
import json
import os
import sys

from keras_bridgetower.object_stores import hide
from keras_bridgetower.presets.errors import printable

# Characters of a first column that are not wrapped.
WHOLE = 40


def show(as_json, value, columns, rows):
    """Print a result: `value` as JSON, or a table of columns and rows."""
    if as_json:
        # ASCII can represent file names that are not UTF-8.
        print(json.dumps(value, default=str))
    elif sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        for row in rows:
            print(_encodable("\t".join(map(cell, row))))


def show_lines(as_json, value, lines):
    """Print a result: `value` as JSON, or lines."""
    if as_json:
        show(True, value, (), ())
    else:
        print(_encodable("\n".join(lines)))


def _encodable(text):
    """Escape characters that stdout cannot encode."""
    encoding = sys.stdout.encoding or "utf-8"
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
    print(printable(f"warning: {text}"), file=sys.stderr, flush=True)


def note(text):
    print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(words):
    """Show a progress bar on the terminal.

    Yields:
        Callable of the finished number and, if it is known, the total.
    """
    if not sys.stderr.isatty():
        yield lambda done, total=None: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Its own file descriptor, as `frameworks.silenced` redirects stderr.
    with os.fdopen(os.dup(2), "w") as terminal:
        console = Console(file=terminal)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(hide(words), total=None)
            yield lambda done, total=None: bar.update(
                task, completed=done, total=total
            )


def _print_table(columns, rows):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    cells = [[Text(_encodable(cell(value))) for value in row] for row in rows]
    for place, column in enumerate(columns):
        # The first column is not wrapped, the others are.
        widest = max((len(row[place]) for row in cells), default=0)
        least = 0 if place else min(widest, WHOLE)
        table.add_column(column, min_width=least, overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console().print(table)
