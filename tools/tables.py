"""Markdown tables, and documents with marks around what tools write."""

import pathlib

ROOT = pathlib.Path(__file__).parent.parent


def markdown(rows):
    """Return a Markdown table of rows of cells; the first row is the head."""
    lines = [f"| {' | '.join(map(str, row))} |\n" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|\n")
    return "".join(lines)


def replace(document, name, text):
    """Write a text after the mark of its name, up to the end mark if any."""
    path = ROOT / document
    before, mark, after = path.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = after.partition(f"<!-- end of {name} -->\n")
    path.write_text(before + mark + text + end + after)
