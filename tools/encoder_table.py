"""Write the tables of encoders, from the registry, into README and documents.

python tools/encoder_table.py
"""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import tables

import keras_bridgetower.encoders  # noqa: F401
from keras_bridgetower.encoders import registry

RESULTS = tables.ROOT / "docs/results/encoders"
SIDES = ("image", "text")


def pages():
    """Return a dict from each document to the text between its marks."""
    parts = *map(encoders, SIDES), parity()
    return {
        "README.md": sentence(),
        "docs/guides/encoders.md": "\n".join(parts),
    }


def sentence():
    """Return the names of all encoders, in two lines."""
    lines = []
    for side in SIDES:
        names = {entry.name for _, entry in entries(side)}
        listed = ", ".join(sorted(names, key=str.lower))
        lines.append(f"* {side} encoders: {listed}\n")
    return "".join(lines)


def entries(side):
    """Return the classes and entries of the library, without those of users."""
    return [(c, e) for c, e in registry.entries(side).items() if e.name]


def encoders(side):
    """Return the table of a side."""
    head = [f"{side} encoder", "class of KerasHub"]
    head += ["`model_type` of `transformers`", "row 0"]
    rows = sorted(row(*item) for item in entries(side))
    if side == "text":
        head.append("tokenizer")
    return tables.markdown([head, *rows])


def row(cls, entry):
    """Return the row of an encoder."""
    kinds = dict.fromkeys(kind for f in entry.files for kind in f.types)
    types = ", ".join(f"`{kind}`" for kind in kinds) or "none"
    own = {"image": "class token", "text": "start token"}[entry.side]
    first = f"`{entry.summary}`" if entry.summary else own
    words = dict.fromkeys(f.tokens.kind for f in entry.files if f.tokens)
    cells = [entry.name, f"`{cls.__name__}`", types, first]
    return cells + [", ".join(f"`{kind}`" for kind in words)] * bool(words)


def parity():
    """Return in a sentence what was measured at base size, by c372d73b."""
    measured = [
        result
        for path in sorted(RESULTS.glob("*.json"))
        for result in json.loads(path.read_text()).values()
    ]
    largest = max(result["difference"] for result in measured)
    return (
        "At base size, with random weights, all hidden states differ from "
        f"`transformers` by at most\n{largest:.0e} of the largest value, on "
        "every backend.\n"
    )


if __name__ == "__main__":
    for document, text in pages().items():
        tables.replace(document, "encoders", text)
