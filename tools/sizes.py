"""Print the size of the package by folder, and of tests, tools and examples.

    python tools/sizes.py

Lines of code are those without docstrings, comments and blank lines. A line
checks if it raises, is an `if` that only raises, or calls a `check_*` function.
"""

import ast
import collections
import io
import re
import tokenize

import tables
from tables import ROOT

PACKAGE = ROOT / "keras_bridgetower"
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def main():
    print(table())
    for folder in ("tests", "tools", "examples"):
        files = list((ROOT / folder).rglob("*.py"))
        lines = sum(len(path.read_text().splitlines()) for path in files)
        print(f"{folder}: {len(files)} files, {lines} lines")
    print(f"modules with one importer: {len(with_one_importer())}")


def table():
    folders = collections.defaultdict(collections.Counter)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        depth = 2 if parts[0] == "apps" and len(parts) > 2 else 1
        name = "/".join(parts[:depth]) if len(parts) > 1 else "top level"
        code, checks = count(path.read_text())
        for key in (name, "all", *(["core"] if parts[0] != "apps" else [])):
            folders[key].update(files=1, code=code, checks=checks)
    rows = [("folder", "files", "lines of code", "lines that check")]
    # Sums come last.
    for name in sorted(folders, key=lambda n: (n in ("core", "all"), n)):
        sizes = folders[name]
        share = f"{sizes['checks'] / max(1, sizes['code']):.1%}"
        rows.append((name, sizes["files"], sizes["code"], share))
    return tables.markdown(rows)


def count(text):
    tree = ast.parse(text)
    lines, documents, checks = set(), set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            documents.update(range(body[0].lineno, body[0].end_lineno + 1))
        if _checks(node):
            checks.update(range(node.lineno, node.end_lineno + 1))
    return len(lines - documents), len(checks & lines)


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(
        getattr(node.value, "value", None), str
    )


def _checks(node):
    if isinstance(node, ast.If):
        return all(isinstance(line, ast.Raise) for line in node.body)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        return bool(re.match(r"_?check_", called))
    return isinstance(node, ast.Raise)


def with_one_importer():
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    importers = collections.defaultdict(set)
    for path in paths.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    names = f"{node.module}.{alias.name}", node.module
                    imported = next(filter(paths.__contains__, names), None)
                    importers[imported].add(path)
    del importers[None]
    return sorted(name for name, by in importers.items() if len(by) == 1)


if __name__ == "__main__":
    main()
