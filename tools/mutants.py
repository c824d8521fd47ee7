"""Change random lines of the package, and list the changes no test notices.

Run it in a clone of its own: it edits files of the package and restores them.

    pip install pytest-cov
    KERAS_BACKEND=torch pytest --cov=keras_bridgetower --cov-context=test
    KERAS_BACKEND=torch python tools/mutants.py --count 200 --seed 0

Each mutant runs the tests that reach its line, those first that reach the
fewest lines, in a fork of a process that has imported the frameworks. What only
subprocesses of tests run has no coverage; its mutants count as survivors if no
other test reaches them.
"""

import argparse
import ast
import collections
import os
import pathlib
import random
import signal
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "keras_bridgetower"
SWAPPED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=12, help="per mutant")
    parser.add_argument("--seconds", type=int, default=180, help="per mutant")
    parser.add_argument("--coverage", default=ROOT / ".coverage")
    options = parser.parse_args()
    reach = Reach(options.coverage)
    chosen = drawn(options.count, random.Random(options.seed))
    # Imported once, for all forks. The package itself is not.
    import keras_hub  # noqa: F401, I001
    import tensorflow  # noqa: F401
    import torch  # noqa: F401

    sys.dont_write_bytecode = True
    survivors, started = [], time.time()
    for number, (path, line, name, source) in enumerate(chosen, 1):
        tests = reach.tests(path, line)[: options.tests]
        noticed = tests and noticed_by(path, source, tests, options.seconds)
        place = f"{path.relative_to(ROOT)}:{line}"
        word = noticed or ("survived" if tests else "no test reaches it")
        text = path.read_text().splitlines()[line - 1].strip()
        print(f"{number}\t{word}\t{place}\t{name}\t{text}", flush=True)
        if not noticed:
            survivors.append(place)
    share = 1 - len(survivors) / len(chosen)
    print(
        f"seed {options.seed}: {share:.1%} of {len(chosen)} mutants noticed, "
        f"in {time.time() - started:.0f} seconds"
    )


class Reach:
    """Which tests reach a line, by coverage with contexts of tests."""

    def __init__(self, path):
        import coverage

        self._data = coverage.CoverageData(str(path))
        self._data.read()
        self._lines = collections.Counter()
        for file in self._data.measured_files():
            for contexts in self._data.contexts_by_lineno(file).values():
                self._lines.update(filter(None, contexts))

    def tests(self, path, line):
        """Return ids of tests, those first that reach the fewest lines."""
        found = self._data.contexts_by_lineno(str(path))
        contexts = set(filter(None, found.get(line, ())))
        if not contexts:
            # Run at import: any test that reaches the file may notice.
            contexts = {c for cs in found.values() for c in cs if c}
        ids = {context.rpartition("|")[0] for context in contexts}
        size = {}
        for context in contexts:
            name = context.rpartition("|")[0]
            size[name] = size.get(name, 0) + self._lines[context]
        return sorted(ids, key=lambda name: (size[name], name))


def drawn(count, rng):
    """Return mutants of random lines: path, line, name and new source."""
    files = sorted(PACKAGE.rglob("*.py"))
    places = []
    for path in files:
        tree = ast.parse(path.read_text())
        places += [(path, line) for line in _candidates(tree)]
    mutants = []
    for path, line in rng.sample(places, count):
        tree = ast.parse(path.read_text())
        name, change = rng.choice(_candidates(tree)[line])
        change()
        mutants.append((path, line, name, ast.unparse(tree) + "\n"))
    return mutants


def _candidates(tree):
    """dict from line to changes `(name, function that makes it)`."""
    found = collections.defaultdict(list)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            for index, node in enumerate(
                value if isinstance(value, list) else [value]
            ):
                if isinstance(node, ast.AST) and hasattr(node, "lineno"):
                    at = index if isinstance(value, list) else None
                    found[node.lineno] += _changes(parent, field, at, node)
    return {line: changes for line, changes in found.items() if changes}


def _changes(parent, field, index, node):
    def put(new):
        if index is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[index] = new

    changes = []
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        new = SWAPPED[type(node.ops[0])]
        changes.append((new.__name__, lambda: node.ops.__setitem__(0, new())))
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPPED:
        kind = SWAPPED[type(node.op)]
        changes.append((kind.__name__, lambda: setattr(node, "op", kind())))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        changes.append(("no not", lambda: put(node.operand)))
    if isinstance(node, (ast.If, ast.IfExp)):
        test = ast.UnaryOp(ast.Not(), node.test)
        changes.append(("not condition", lambda: setattr(node, "test", test)))
    if isinstance(node, ast.Constant) and not isinstance(parent, ast.Expr):
        if isinstance(node.value, bool):
            changes.append(("bool", lambda: put(ast.Constant(not node.value))))
        elif isinstance(node.value, (int, float)):
            new = node.value + 1
            changes.append(("number", lambda: put(ast.Constant(new))))
    dropped = isinstance(node, (ast.Raise, ast.Assign, ast.AugAssign))
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if (dropped or call) and field in ("body", "orelse", "finalbody"):
        changes.append(("dropped", lambda: put(ast.Pass())))
    return changes


def noticed_by(path, source, tests, seconds):
    """Return how tests notice a mutant: "failed" or "time", else None."""
    original = path.read_text()
    path.write_text(source)
    try:
        child = os.fork()
        if not child:
            _run(tests)
        until = time.time() + seconds
        while time.time() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return None if status == 0 else "failed"
            time.sleep(0.1)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "time"
    finally:
        path.write_text(original)


def _run(tests):
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    code = 3
    try:
        import pytest

        sys.path.insert(0, str(ROOT))
        os.chdir(ROOT)
        code = pytest.main(
            ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
        )
    finally:
        os._exit(int(code))


if __name__ == "__main__":
    main()
