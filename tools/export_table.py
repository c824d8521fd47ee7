"""Write the table of formats in docs/guides/export.md.

python tools/export_table.py
"""

import pathlib

from keras_bridgetower.backend.names import BACKENDS
from keras_bridgetower.models.exporting.formats import FORMATS

DOCUMENT = pathlib.Path(__file__).parent.parent / "docs/guides/export.md"
START, END = "<!-- formats -->\n", "<!-- end of formats -->\n"
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def main():
    before, _, after = parts()
    DOCUMENT.write_text(before + START + table() + END + after)


def parts():
    """Return the page before its table, the table, and the page after it."""
    before, rest = DOCUMENT.read_text().split(START)
    return before, *rest.split(END)


def table():
    """Return the table of formats and the backends that write them."""
    names = " | ".join(NAMES[backend] for backend in BACKENDS)
    lines = [f"| format | {names} | file | opened by |"]
    lines.append("|---" * (len(BACKENDS) + 3) + "|")
    for name, found in FORMATS.items():
        cells = ["✓" if b in found.backends else "—" for b in BACKENDS]
        file = f"`{found.suffix}`" if found.suffix else "a folder"
        lines.append(
            f"| `{name}` | {' | '.join(cells)} | {file} | {found.opens} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
