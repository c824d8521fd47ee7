"""Command lines, numbers and tables that the examples and worlds share."""

import argparse
import json
import pathlib

import numpy as np


def parser(doc, stages=()):
    """Return an `ArgumentParser` with the folder of a run, from a docstring.

    It takes a number of epochs for each of some stages.
    """
    made = argparse.ArgumentParser(description=doc.split("\n")[0])
    made.add_argument("folder", type=pathlib.Path)
    for name in stages:
        made.add_argument(f"--{name}", type=int, help="epochs")
    return made


def draw(choices, rng):
    """Draw one of several choices."""
    return choices[rng.integers(len(choices))]


def percent(hits, digits=1):
    """Return the mean in percent, rounded."""
    return round(100 * float(np.mean(hits)), digits)


def mean_and_spread(values, digits):
    """Return `"84.1 ± 0.5"`: mean and standard deviation (n - 1)."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def markdown(rows):
    """Return a Markdown table of rows of cells; the first row is the head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def write_scores(path, tables):
    """Print tables of scores, and write them as JSON."""
    for name, table in tables.items():
        print(f"\n{name}")
        for row, numbers in table.items():
            print(f"  {row}: {numbers}")
    path.write_text(json.dumps(tables, indent=2))
