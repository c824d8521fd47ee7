"""Write the table of folders in docs/architecture.md, from their docstrings.

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
    """Return the table: each folder and top module, and its first line."""
    package = ROOT / "keras_bridgetower"
    modules = [*package.glob("*.py"), *package.glob("*/**/__init__.py")]
    lines = ["| module | what it holds |", "|---|---|"]
    for path in sorted(set(modules) - {package / "__init__.py"}):
        name = path.relative_to(package).as_posix()
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        first = docstring.partition("\n")[0].replace("|", "\\|")
        lines.append(f"| `{name.removesuffix('__init__.py')}` | {first} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
