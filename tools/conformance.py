"""Run the conformance tests and write their tables into docs.

python tools/conformance.py keras reports
python tools/conformance.py exports reports torch    # one backend of three

`keras` is docs/conformance.md and `exports` is docs/export_matrix.md, which
needs the extra `export`.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import tables

FAILS = "FAILS"
SIGNS = {None: "·", "right": "✓", FAILS: "✗"}
BACKENDS = ("tensorflow", "jax", "torch")
EXPORTS = "tests/conformance/test_export.py"
# By name: the document with the table, and arguments of pytest.
PAGES = {
    "keras": (
        "docs/conformance.md",
        ("tests/conformance", f"--ignore={EXPORTS}"),
    ),
    "exports": ("docs/export_matrix.md", (EXPORTS,)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=PAGES)
    parser.add_argument("folder", type=pathlib.Path, help="of the reports")
    parser.add_argument("backends", nargs="*", default=BACKENDS)
    parser.add_argument("--read", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    document, tests = PAGES[arguments.page]
    folder = arguments.folder / arguments.page
    folder.mkdir(parents=True, exist_ok=True)
    for backend in () if arguments.read else arguments.backends:
        run(backend, tests, report_of(folder, backend))
    found = {b: outcomes(report_of(folder, b)) for b in BACKENDS}
    tables.replace(document, "table", f"\n{table(found)}")
    wrong = sum(x == FAILS for cells in found.values() for x in cells.values())
    print(f"{document}: {wrong} cells are wrong")
    sys.exit(bool(wrong))


def report_of(folder, backend):
    return folder.absolute() / f"{backend}.xml"


def run(backend, tests, report):
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests]
        + ["-m", "slow or not slow", f"--junitxml={report}"]
        # The other family has no properties of a test.
        + ["-o", "junit_family=xunit1"],
        cwd=tables.ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
    )


def outcomes(report):
    found = {}
    if not report.exists():
        return found
    for test in xml.etree.ElementTree.parse(report).iter("testcase"):
        facts = {p.get("name"): p.get("value") for p in test.iter("property")}
        if "row" not in facts:
            continue
        outcome = facts.get("outcome", "right")
        if (skipped := test.find("skipped")) is not None:
            outcome = f"skipped: {skipped.get('message')}"
        elif test.find("failure") is not None or test.find("error") is not None:
            outcome = FAILS
        found[facts["row"], facts["task"]] = outcome
    return found


def table(found):
    cells = [cell for of_backend in found.values() for cell in of_backend]
    names = dict.fromkeys(row for row, _ in cells)
    tasks = dict.fromkeys(task for _, task in cells)
    notes, rows = {}, [["", *(task.replace("_", " ") for task in tasks)]]
    for name in names:
        rows.append([name])
        for task in tasks:
            outcomes = [found[b].get((name, task)) for b in BACKENDS]
            signs = [sign(outcome, notes) for outcome in outcomes]
            same = len(set(signs)) == 1
            rows[-1].append(signs[0] if same else " ".join(signs))
    head, *rows = rows_joined(rows)
    equal = [row[:2] for row in rows if len({*row[1:]}) == 1]
    others = [row for row in rows if len({*row[1:]}) > 1]
    parts = []
    if equal:
        parts.append(tables.markdown([["", "all tasks"], *equal]))
    if others:
        parts.append(tables.markdown(columns_joined([head, *others])))
    listed = [f"{number}. {text}\n" for text, number in notes.items()]
    return "\n".join([*parts, "".join(listed)])


def rows_joined(rows):
    """Join neighbors that are variants of one test with equal results."""
    joined = []
    for row in rows:
        title, colon, _ = row[0].rpartition(": ")
        before = joined[-1] if joined else [""]
        if colon and before[1:] == row[1:]:
            if before[0].startswith(f"{title}: "):
                before[0] += f", {row[0].removeprefix(f'{title}: ')}"
                continue
        joined.append(list(row))
    return joined


def columns_joined(rows):
    """Join tasks with equal results."""
    tasks = {}
    for task, *cells in zip(*rows, strict=True):
        tasks.setdefault(tuple(cells), []).append(task)
    columns = [(", ".join(names), *cells) for cells, names in tasks.items()]
    return list(zip(*columns, strict=True))


def sign(outcome, notes):
    if outcome in SIGNS:
        return SIGNS[outcome]
    kind, _, text = outcome.partition(": ")
    # Values that were received and numbers of classes differ among tasks.
    sentence = re.split(r"(?<=[.;]) |\. Received|: Received", text)[0]
    sentence = re.sub(r"the \d+ classes", "the classes", sentence)
    note = f"{kind.capitalize()}: {sentence.rstrip('.;')}."
    return str(notes.setdefault(note, len(notes) + 1))


if __name__ == "__main__":
    main()
