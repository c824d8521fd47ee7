"""Write the table of folders in docs/architecture.md, from their docstrings.

python tools/module_table.py
"""

import ast

import tables


def table():
    """Return the table: each folder and top module, and its first line."""
    package = tables.ROOT / "keras_bridgetower"
    modules = [*package.glob("*.py"), *package.glob("*/**/__init__.py")]
    rows = [("module", "what it holds")]
    for path in sorted(set(modules) - {package / "__init__.py"}):
        name = path.relative_to(package).as_posix()
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        first = docstring.partition("\n")[0].replace("|", "\\|")
        rows.append((f"`{name.removesuffix('__init__.py')}`", first))
    return tables.markdown(rows)


if __name__ == "__main__":
    tables.replace("docs/architecture.md", "modules", table())
