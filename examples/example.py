"""What the examples share: a command line, and a folder for their figures.

An example begins with fields such as `Title:` and `Accelerator:`, of which the
help of its command line and the gallery in docs/examples.md are made.
"""

import argparse
import pathlib
import re

FIELDS = ("Title", "Author", "Date", "Description", "Accelerator")


def fields(doc):
    """What stands behind the names of `FIELDS` in a docstring.

    Args:
        doc: str, the docstring of an example.

    Returns:
        dict from each name to a str on one line.
    """
    head = doc.split("\n\n")[0]
    found = re.split(rf"^({'|'.join(FIELDS)}): ", head, flags=re.M)
    pairs = zip(found[1::2], found[2::2], strict=True)
    return {name: " ".join(text.split()) for name, text in pairs}


def parser(script, doc):
    """A command line with `--output`.

    Args:
        script: `__file__` of an example.
        doc: its docstring.

    Returns:
        `argparse.ArgumentParser`.
    """
    made = argparse.ArgumentParser(description=fields(doc)["Description"])
    made.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("out", pathlib.Path(script).stem),
        help="folder of what the example writes (default: %(default)s)",
    )
    return made


def new_figure(width, height):
    """An empty matplotlib `Figure`, its size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The examples draw with matplotlib: `pip install matplotlib`, or "
            "install keras-bridgetower with its extra `viz`."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, folder, name, caption):
    """Write a figure into the folder of outputs, and say so.

    Args:
        figure: a matplotlib `Figure`.
        folder: path, made where it does not exist.
        name: str, the file.
        caption: str, what it shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=100)
    print(f"{folder / name}: {caption}")
