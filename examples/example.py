"""Command line and figures of the examples.

An example begins with fields such as `Title:` and `Accelerator:`, from which
the help of its command line and the page docs/examples.md are made.
"""

import argparse
import pathlib
import re
import textwrap
import time

import keras
import numpy as np
from PIL import Image

RED = "#c04000"
FIELDS = ("Title", "Author", "Date", "Description", "Accelerator")


def fields(doc):
    """Read the `FIELDS` of a docstring: dict from name to a str on one line."""
    head = doc.split("\n\n")[0]
    found = re.split(rf"^({'|'.join(FIELDS)}): ", head, flags=re.M)
    pairs = zip(found[1::2], found[2::2], strict=True)
    return {name: " ".join(text.split()) for name, text in pairs}


def parser(script, doc):
    """Return an `ArgumentParser` with `--output`, from file and docstring."""
    made = argparse.ArgumentParser(description=fields(doc)["Description"])
    made.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("out", pathlib.Path(script).stem),
        help="folder of what the example writes (default: %(default)s)",
    )
    return made


def drawings():
    """Return the drawings of emoji: dict from name to path."""
    folder = pathlib.Path(__file__).parent / "drawings"
    paths = sorted(folder.glob("*.png"))
    return {path.stem.replace("_", " "): path for path in paths}


def pixels(path):
    """Return a picture on white paper, uint8 `(H, W, 3)`."""
    with Image.open(path) as image:
        drawn = image.convert("RGBA")
    paper = Image.new("RGBA", drawn.size, "white")
    paper.alpha_composite(drawn)
    return np.asarray(paper.convert("RGB"))


def timed(main):
    started = time.time()
    main()
    seconds = time.time() - started
    print(f"{seconds:.1f} seconds on {keras.config.backend()}")


def new_figure(width, height):
    """Return an empty matplotlib `Figure`, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure, folder, name, caption):
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=100)
    print(f"{folder / name}: {caption}")


def contact_sheet(cells, columns, title):
    """Draw pictures in cells, with a text below each; wrong ones are red.

    Args:
        cells: list of `(pictures, text, right)`: arrays `(H, W, 3)` of uint8
            side by side, a str of one or more lines, and a bool.
        columns: int, cells in a row.
        title: str.
    """
    rows = -(-len(cells) // columns)
    across = max(len(pictures) for pictures, *_ in cells)
    width = max(across, 1.4)
    texts = [_wrap(text, int(23 * width)) for _, text, _ in cells]
    # As many lines for each, so that the pictures have one size.
    lines = max(map(len, texts))
    figure = new_figure(2.1 * columns * width, rows * (2.1 + 0.2 * lines) + 0.4)
    figure.suptitle(title, fontsize=13)
    grid = figure.subfigures(rows, columns, squeeze=False)
    for part, (pictures, _, right), text in zip(
        grid.flat, cells, texts, strict=False
    ):
        places = part.subplots(1, across, squeeze=False)[0]
        for axes, picture in zip(places, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        text += [" "] * (lines - len(text))
        color = "black" if right else RED
        part.supxlabel("\n".join(text), fontsize=11, color=color)
    return figure


def _wrap(text, width):
    return [
        piece
        for line in text.split("\n")
        for piece in textwrap.wrap(line, width)
    ]
