"""Draws pictures with their texts into one figure, in cells or in rows."""

import textwrap

from example import new_figure

RIGHT, WRONG, PLAIN = "#00704f", "#c04000", "#bbbbbb"


def contact_sheet(cells, columns, title):
    """Lay pictures out in cells, with a text below each.

    Args:
        cells: list of `(pictures, text, right)`: arrays `(H, W, 3)` of uint8
            that stand side by side, a str of one or more lines, and whether
            the model was right. Texts of wrong ones are red.
        columns: int, cells in a row.
        title: str.

    Returns:
        A matplotlib `Figure`.
    """
    rows = -(-len(cells) // columns)
    across = max(len(pictures) for pictures, *_ in cells)
    width = max(across, 1.4)
    texts = [_wrapped(text, int(23 * width)) for _, text, _ in cells]
    # As many for each, so that the pictures have one size.
    lines = max(map(len, texts))
    figure = new_figure(2.1 * columns * width, rows * (2.1 + 0.2 * lines) + 0.4)
    figure.suptitle(title, fontsize=13)
    grid = figure.subfigures(rows, columns, squeeze=False)
    for part, (pictures, _, right), text in zip(
        grid.flat, cells, texts, strict=False
    ):
        places = part.subplots(1, across, squeeze=False)[0]
        for axes, picture in zip(places, pictures, strict=True):
            _show(axes, picture)
        text += [" "] * (lines - len(text))
        color = "black" if right else WRONG
        part.supxlabel("\n".join(text), fontsize=11, color=color)
    return figure


def _wrapped(text, width):
    """The lines of a text, none longer than `width` letters."""
    return [
        piece
        for line in text.split("\n")
        for piece in textwrap.wrap(line, width)
    ]


def rows_of_hits(rows, title):
    """Draw what queries found, a row for each query.

    Args:
        rows: list of `(query, hits)`: a str, and a list of
            `(picture, label, right)`, the best first. Those that fit the
            query have a green frame.
        title: str.

    Returns:
        A matplotlib `Figure`.
    """
    count = max(len(hits) for _, hits in rows)
    figure = new_figure(1.75 * count, 2.15 * len(rows) + 0.4)
    figure.suptitle(title, fontsize=13)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (query, hits) in zip(parts, rows, strict=True):
        part.suptitle(f"“{query}”", x=0.01, ha="left", fontsize=12)
        line = part.subplots(1, count, squeeze=False)[0]
        for axes, (picture, label, right) in zip(line, hits, strict=True):
            _show(axes, picture, RIGHT if right else PLAIN)
            axes.set_xlabel(label, fontsize=11)
    return figure


def _show(axes, picture, frame=PLAIN):
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for line in axes.spines.values():
        line.set(color=frame, linewidth=1 if frame == PLAIN else 3)
