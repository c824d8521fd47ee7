"""The machine, and the tables, CSV files and plots of a report."""

import csv
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess

PACKAGES = (
    *("keras-bridgetower", "keras", "keras-hub", "transformers", "torch"),
    *("jax", "tensorflow", "onnxruntime", "openvino", "numpy"),
)
# Columns if rows differ in them, else a part of the line below the table.
SIZES = {"size": "{}", "side": "{} px", "batch": "batch {}"}
# Columns if any row has them, each with its title and format.
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


def gpu():
    """Return name, memory and driver of the first visible GPU, or None."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    if shutil.which("nvidia-smi") is None:
        return None
    fields = "--query-gpu=name,memory.total,driver_version"
    process = subprocess.run(
        ["nvidia-smi", fields, "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    lines = process.stdout.strip().splitlines()
    return lines[0] if process.returncode == 0 and lines else None


def processor():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [x.partition(": ")[2] for x in lines if x.startswith("model name")]
    name = models[0] if models else platform.processor()
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    return f"{name}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}"


def versions():
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([f"Python {platform.python_version()}", *found])


def markdown(rows, work):
    """Return a table of one work, and a line with what its rows share.

    `rows` are those of `Rounds.rows`, with `size` and `side`.
    """
    varied, shared = _varied_and_shared(rows)
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
    note = ", ".join(["Compared with " + beside, *shared])
    return "\n".join([*lines, "", f"{note}."])


def _varied_and_shared(rows):
    """Return the `SIZES` that differ between rows, and the values of others."""
    values = {key: {row[key] for row in rows} for key in SIZES}
    varied = [key for key, found in values.items() if len(found) > 1]
    shared = {k: found.pop() for k, found in values.items() if k not in varied}
    return varied, shared


def write_csv(path, rows):
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, keys)
        table.writeheader()
        table.writerows(rows)


def curves(path, *panels, note=None, **settings):
    """Draw panels of curves, one curve for each value of a column.

    A panel is `(rows, x, y, by)`, three names of columns. `note` is a column
    whose values are written at points; `settings` are for `Axes.set`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 4 * len(panels), 3.6), layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (rows, x, y, by) in zip(places, panels, strict=True):
        for value in dict.fromkeys(row[by] for row in rows):
            some = [row for row in rows if row[by] == value]
            points = [(row[x], row[y]) for row in some]
            axes.plot(*zip(*points, strict=True), "o-", label=value)
            for row, point in zip(some if note else (), points, strict=False):
                axes.annotate(row[note], point, fontsize=7, va="bottom")
        axes.set(xlabel=x, ylabel=y, **settings)
        axes.grid(alpha=0.3)
        axes.legend(title=by, fontsize=8)
    figure.savefig(path, dpi=160)


def draw(path, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.3 * len(rows) + 1.2), layout="tight")
    axes = figure.subplots()
    places = range(len(rows))
    ratios = [row["ratio"] for row in rows]
    spread = [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]
    axes.barh(places, ratios, xerr=spread, color="#0072b2", ecolor="#333333")
    varied, _ = _varied_and_shared(rows)
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
    figure.savefig(path, dpi=110)
