"""Run the examples, and write the page of the gallery and its figures.

    python tools/gallery.py               # all, some ten minutes
    python tools/gallery.py ask compare   # some of them
    python tools/gallery.py --page        # the page alone, from the headers

Each example runs without an argument in an empty folder, and the figure that it
ends with becomes `docs/pictures/examples/NAME.png`.
"""

import argparse
import ast
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tempfile
import textwrap
import time

from small_pictures import few_colours
from tables import ROOT

EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "examples.md"
PICTURES = ROOT / "docs" / "pictures" / "examples"
# In the order of the page.
NAMES = (
    *("ask", "fill_mask", "entail", "compare"),
    *("match_and_rank", "embed_search", "finetune_vqa"),
    *("finetune_reranker", "custom_loop", "pretrain", "finetune"),
    "ablations",
)
WIDEST = 1000  # pixels
# The text before it is kept.
MARK = "<!-- examples -->\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--page", action="store_true")
    settings = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in () if settings.page else settings.names or NAMES:
        began = time.time()
        keep_figure(name)
        print(f"{name}: {time.time() - began:.0f} seconds", flush=True)
    PAGE.write_text(page())


def keep_figure(name):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py")],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
        *_, path = re.findall(r"^(\S+\.png): ", done.stdout, re.M)
        small = few_colours(pathlib.Path(folder, path), WIDEST)
        (PICTURES / f"{name}.png").write_bytes(small)


def page():
    start, mark, _ = PAGE.read_text().partition(MARK)
    parts = [start, mark]
    for name in NAMES:
        script = EXAMPLES / f"{name}.py"
        found = fields(ast.get_docstring(ast.parse(script.read_text())))
        parts.append(
            f"\n## {found['Title']}\n\n"
            f"{textwrap.fill(first_sentence(found['Description']), 90)}\n\n"
            f"`python examples/{name}.py`: "
            f"{found['Accelerator'].removeprefix('none; ')}\n\n"
            f"![Figure of {name}.py](pictures/examples/{name}.png)\n"
        )
    return "".join(parts)


def first_sentence(text):
    return f"{text.split('. ')[0].rstrip('.')}."


def fields(doc):
    """Read the header of an example by `examples/example.py`."""
    return runpy.run_path(str(EXAMPLES / "example.py"))["fields"](doc)


if __name__ == "__main__":
    main()
