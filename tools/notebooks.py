r"""Execute the notebooks, and write their outputs into them.

    pip install ".[torch,jax,search,notebooks]"
    python tools/notebooks.py                        # all of them
    python tools/notebooks.py multimodal_rag         # one

Each runs in a kernel of its own, in an empty folder. Its last picture becomes
`docs/pictures/notebooks/NAME.png`. Prints the minutes, those of the processor
and the memory that each took.
"""

import argparse
import base64
import os
import tempfile
import time

import nbformat
from nbclient import NotebookClient
from small_pictures import few_colours
from tables import ROOT

NOTEBOOKS = ROOT / "notebooks"
PICTURES = ROOT / "docs" / "pictures" / "notebooks"
# Bytes of a picture, so that the repository stays small.
LARGEST = 60_000
# What a kernel used, and the processes that it started: memory in kilobytes,
# and seconds of the processor.
_USED = """
import resource
used = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
]
seconds = sum(each.ru_utime + each.ru_stime for each in used)
print(max(each.ru_maxrss for each in used), seconds)
"""


def main():
    every = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in names or every:
        began = time.time()
        notebook, memory, seconds = executed(NOTEBOOKS / f"{name}.ipynb")
        nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
        last = pictures(notebook)[-1]
        (PICTURES / f"{name}.png").write_bytes(last)
        print(
            f"{name}: {(time.time() - began) / 60:.1f} minutes, "
            f"{seconds / 60:.1f} of the processor, {memory} MiB",
            flush=True,
        )


def executed(path, values=None):
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.source = with_values(cell, values or {})
    notebook.cells.append(nbformat.v4.new_code_cell(_USED))
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,
            extra_arguments=["--InlineBackend.figure_formats=png"],
            resources={"metadata": {"path": folder}},
        ).execute(env=_environment())
    memory, seconds = notebook.cells.pop().outputs[-1].text.split()
    for cell in code_cells(notebook):
        cell.outputs = tidy(cell.outputs)
    return notebook, int(memory) // 1024, float(seconds)


def tidy(outputs):
    """Join and shrink outputs, and drop warnings of libraries.

    Such warnings name folders of this machine.
    """
    made = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if made and output.output_type == made[-1].output_type == "stream":
            made[-1].text += output.text
            continue
        if "image/png" in output.get("data", {}):
            small = few_colours(base64.b64decode(output.data["image/png"]))
            output.data["image/png"] = base64.b64encode(small).decode()
        made.append(output)
    return made


def _environment():
    """Return the environment of the kernel: this clone, and one CPU core."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
    }


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_values(cell, values):
    if "parameters" not in cell.metadata.get("tags", []):
        return cell.source
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join([cell.source, *lines])


def pictures(notebook):
    return [
        base64.b64decode(output.data["image/png"])
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


if __name__ == "__main__":
    main()
