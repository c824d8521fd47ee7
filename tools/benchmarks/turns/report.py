"""Writes what was measured: tables in Markdown and CSV, and plots."""

import csv

# What a row says of its own, where rows differ in it.
SIZES = {"size": "{}", "side": "{} px", "batch": "batch {}"}
# What the table shows of rows that have it, each with its title and format.
COLUMNS = {
    "seconds": ("seconds", "{:.3g}"),
    "seconds per row": ("seconds per row", "{:.3g}"),
    "reference": ("reference's seconds", "{:.3g}"),
    "ratio": ("ratio", "{:.2f}"),
    "quartiles": ("quartiles", "{}"),
    "first": ("first turn", "{:.1f}"),
    "distance": ("distance", "{:.0e}"),
    "device": ("device", "{}"),
}
# By what runs the model; the colours are told apart in print too.
COLOURS = {"transformers": "#e69f00", "onnxruntime": "#009e73"}
COLOURS["openvino"] = "#009e73"
OURS = "#0072b2"


def markdown(rows, work):
    """A table of one work, and a line that says what its rows share.

    Args:
        rows: list of dict, as `Rounds.rows` gives them, with `size` and
            `side`.
        work: `Work`.

    Returns:
        str, lines of Markdown.
    """
    varied, shared = _by_whether_it_varies(rows)
    columns = {"name": ("", "{}")}
    columns |= {key: (key, "{}") for key in varied}
    columns |= COLUMNS | {key: (key, "{:.3g}") for key in work.also}
    if work.per_row:
        title = f"seconds per {work.per_row}"
        columns["seconds per row"] = (title, "{:.3g}")
    rows = [
        row | {"quartiles": f"{row['low']:.2f} - {row['high']:.2f}"}
        for row in rows
    ]
    columns = {
        key: column
        for key, column in columns.items()
        if any(key in row for row in rows)
    }
    titles = [title for title, _ in columns.values()]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [
            form.format(row[key]) if key in row else ""
            for key, (_, form) in columns.items()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    beside = ", ".join(sorted({row["beside"] for row in rows}))
    shared = [SIZES[key].format(value) for key, value in shared.items()]
    said = ", ".join(["Compared with " + beside, *shared])
    flash = {row["flash attention"] for row in rows if "flash attention" in row}
    if flash:
        said += f". Flash attention of Keras: {', '.join(sorted(flash))}"
    return "\n".join([*lines, "", f"{said}."])


def _by_whether_it_varies(rows):
    """Which of `SIZES` differ between rows, and those that do not."""
    values = {key: {row[key] for row in rows} for key in SIZES}
    varied = [key for key, found in values.items() if len(found) > 1]
    shared = {k: found.pop() for k, found in values.items() if k not in varied}
    return varied, shared


def write_csv(path, rows):
    """All rows of a run in one file, with every column that any of them has."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, _keys(rows))
        table.writeheader()
        table.writerows(rows)


def draw(path, rows):
    """Bars of the ratios of one work, with their quartiles.

    Args:
        path: path of the new picture.
        rows: list of dict.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.3 * len(rows) + 1.2))
    places = range(len(rows))
    ratios = [row["ratio"] for row in rows]
    spread = [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]
    colours = [COLOURS.get(row["name"].split()[0], OURS) for row in rows]
    axes.barh(places, ratios, xerr=spread, color=colours, ecolor="#333333")
    varied, _ = _by_whether_it_varies(rows)
    labels = [
        ", ".join([row["name"], *(SIZES[k].format(row[k]) for k in varied)])
        for row in rows
    ]
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.axvline(1, color="#666666", ls="--")
    beside = {row["beside"] for row in rows}
    name = beside.pop() if len(beside) == 1 else "its reference"
    axes.set_xlabel(f"times as fast as {name}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _keys(rows):
    """The keys of all rows, in the order in which they first stand."""
    return list(dict.fromkeys(key for row in rows for key in row))
