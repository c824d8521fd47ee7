"""Write the table of modules in docs/architecture.md, from their first lines.

python tools/module_table.py
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
START, END = "<!-- modules -->\n", "<!-- end of modules -->\n"


def main():
    text = DOCUMENT.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    DOCUMENT.write_text(before + START + table() + END + after)


def table():
    """Return the table: each module of the package, and its first line."""
    package = ROOT / "keras_bridgetower"
    lines = ["| module | what it holds |", "|---|---|"]
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        said = ast.get_docstring(ast.parse(path.read_text()))
        first = said.partition("\n")[0].replace("|", "\\|")
        lines.append(f"| `{name.removesuffix('__init__.py')}` | {first} |")
    return "\n".join(line for line in lines if "| `` |" not in line) + "\n"


if __name__ == "__main__":
    main()
