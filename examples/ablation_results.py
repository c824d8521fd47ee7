"""Keeps the results of an ablation, and writes Markdown, CSV and a plot."""

import csv
import json
import os
import pathlib
import platform

import keras
import numpy as np

from keras_bridgetower.analysis import figures

SETTINGS = "settings.json"
COLUMNS = (
    *("variant", "parameters", "VQA", "RSUM", "blind"),
    *("parameters, paper", "VQA, paper", "RSUM, paper"),
)


class RunDirectory:
    """Results of finished runs, keyed by the settings that they depend on.

    Args:
        path: the folder; made where it does not exist.
        settings: dict of plain values. The folder of others is refused.

    Raises:
        ValueError: the folder holds runs of other settings.
    """

    def __init__(self, path, settings):
        self.path = pathlib.Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / SETTINGS
        if not file.exists():
            _write(file, self.settings)
        kept = json.loads(file.read_text())
        unlike = {
            name: (kept.get(name), self.settings.get(name))
            for name in sorted({*kept, *self.settings})
            if kept.get(name) != self.settings.get(name)
        }
        if unlike:
            shown = ", ".join(
                f"{name}={new!r}, there {old!r}"
                for name, (old, new) in unlike.items()
            )
            raise ValueError(
                f"`--output` must be a new folder, or one of the same "
                f"settings. Received: --output {self.path}, which holds runs "
                f"of others: {shown}"
            )

    def once(self, name, run):
        """The result of a run: the one that is kept, or that of `run()`."""
        file = self.path / f"{name.replace('/', '-')}.json"
        if not file.exists():
            _write(file, run())
        return json.loads(file.read_text())


def _write(path, values):
    """Write JSON whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=2) + "\n")
    part.replace(path)


def mean_and_spread(values):
    """`"84.10 ± 0.52"`: mean and standard deviation (n - 1) over seeds."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    mean = f"{np.mean(values):.2f}"
    return f"{mean} ± {np.std(values, ddof=1):.2f}" if values[1:] else mean


def row_of(variant, parameters, runs, blind):
    """One row of the table, as strings.

    Args:
        variant: `Variant`.
        parameters: str.
        runs: list of results, one for each seed.
        blind: float, or None where nothing was scored.
    """
    paper = variant.paper
    cells = (
        variant.name,
        parameters,
        mean_and_spread([run["vqa"]["overall"] for run in runs]),
        mean_and_spread([run["rsum"] for run in runs]),
        "" if blind is None else f"{blind:.2f}",
        paper.parameters or "",
        "" if paper.vqa is None else f"{paper.vqa:.2f}",
        "" if paper.rsum is None else f"{paper.rsum:.1f}",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def markdown(rows):
    """The table, without columns that are empty in every row."""
    columns = [c for c in COLUMNS if any(row[c] for row in rows)]
    lines = [columns, ["---"] * len(columns)]
    lines += [[row[column] for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine():
    """One line about where the numbers come from."""
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"{keras.config.backend()} backend, Keras {keras.__version__}"
    )


def write(path, title, rows, scores, note):
    """Write `table.md`, `table.csv` and `figure.png` into a folder.

    Args:
        path: the folder.
        title: str.
        rows: list of what `row_of` gave.
        scores: dict from a variant's name to its scores by seed.
        note: str, how the numbers came about.
    """
    path = pathlib.Path(path)
    page = f"# {title}\n\n{markdown(rows)}\n{note}\n"
    (path / "table.md").write_text(page)
    with open(path / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    figure = figures.scores(scores, title, "VQA score on test, %")
    figure.savefig(path / "figure.png", dpi=150)
