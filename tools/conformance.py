"""Run the conformance tests and write their tables into docs.

python tools/conformance.py keras reports     # continues from what is there
python tools/conformance.py exports reports torch    # one backend of three

`keras` is docs/conformance.md and `exports` is docs/export_matrix.md, which
needs the extra `export`.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

BACKENDS = ("tensorflow", "jax", "torch")
ROOT = pathlib.Path(__file__).parent.parent
EXPORTS = "tests/conformance/test_export.py"


class Page(NamedTuple):
    """A table of the documentation."""

    document: str  # Path in the repository.
    tests: tuple  # Arguments of pytest.
    opening: str  # What stands before the table.


PAGES = {
    "keras": Page(
        "docs/conformance.md",
        ("tests/conformance", f"--ignore={EXPORTS}"),
        """# What Keras users do with a task

Made by `python tools/conformance.py keras reports`, which runs the long
version of `tests/conformance` on the three backends. A cell has the results of
TensorFlow, JAX and PyTorch in this order, or one result if they agree:

* `✓`: right, compared with a reference, such as the same data as lists, or a
  `fit` without the option;
* a number: refused with an error, or not supported; the note has the reason;
* `✗`: wrong.

What `export` writes stands in [a table of its own](export_matrix.md).

""",
    ),
    "exports": Page(
        "docs/export_matrix.md",
        (EXPORTS,),
        """# What is exported, and runs

Made by `python tools/conformance.py exports reports`, which writes every task
in every [format](guides/export.md) on the three backends. What was written is
run by the program that the format is for. A cell has the results of
TensorFlow, JAX and PyTorch in this order:

* `✓`: batches of 4, 1 and 2 rows, with texts of 24, 11 and 7 tokens, gave the
  model's numbers up to 1e-5; none of these sizes was traced;
* a number: refused, and nothing was written; the note has the error;
* `✗`: wrong.

""",
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=PAGES)
    parser.add_argument("folder", type=pathlib.Path, help="of the reports")
    parser.add_argument("backends", nargs="*", default=BACKENDS)
    parser.add_argument("--read", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    page = PAGES[arguments.page]
    folder = arguments.folder / arguments.page
    folder.mkdir(parents=True, exist_ok=True)
    for backend in () if arguments.read else arguments.backends:
        run(backend, page.tests, report_of(folder, backend))
    found = {b: outcomes(report_of(folder, b)) for b in BACKENDS}
    (ROOT / page.document).write_text(page.opening + table(found))
    wrong = [
        k for cells in found.values() for k in cells.items() if failed(k[1])
    ]
    print(f"{page.document}: {len(wrong)} cells are wrong")
    sys.exit(bool(wrong))


def report_of(folder, backend):
    return folder.absolute() / f"{backend}.jsonl"


def run(backend, tests, report):
    """Run the tests that a report lacks or that failed."""
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests]
        + ["-m", "slow or not slow"],
        cwd=ROOT,
        env=os.environ
        | {"KERAS_BACKEND": backend, "CONFORMANCE_REPORT": str(report)},
    )


def outcomes(report):
    """Return the last outcome of each row and task."""
    if not report.exists():
        return {}
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return {(line["row"], line["task"]): line["outcome"] for line in lines}


def failed(outcome):
    return outcome.startswith("FAILS")


def table(found):
    """Return the matrix in Markdown, with its footnotes."""
    cells = [cell for of_backend in found.values() for cell in of_backend]
    names = dict.fromkeys(row for row, _ in cells)
    tasks = dict.fromkeys(task for _, task in cells)
    headings = [task.replace("_", " ") for task in tasks]
    notes, written = {}, [f"| | {' | '.join(headings)} |"]
    written.append("|---" * (len(tasks) + 1) + "|")
    for name in names:
        row = []
        for task in tasks:
            told = [found[b].get((name, task)) for b in BACKENDS]
            signs = [sign(outcome, notes) for outcome in told]
            row.append(signs[0] if len(set(signs)) == 1 else " ".join(signs))
        written.append(f"| {name} | {' | '.join(row)} |")
    written.append("")
    written += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(written) + "\n"


def sign(outcome, notes):
    if outcome is None:
        return "·"
    if outcome == "right":
        return "✓"
    if failed(outcome):
        return "✗"
    kind, _, text = outcome.partition(": ")
    # What was received differs from task to task.
    sentence = re.split(r"(?<=[.;]) |\. Received|: Received", text)[0]
    note = f"{kind.capitalize()}: {sentence.rstrip('.;')}."
    return str(notes.setdefault(note, len(notes) + 1))


if __name__ == "__main__":
    main()
