"""Write the tables of encoders, from the registry, into README and documents.

python tools/encoder_table.py
"""

import json
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras_bridgetower.encoders  # noqa: F401
from keras_bridgetower.encoders import registry

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "docs/results/encoders"
START, END = "<!-- encoders -->\n", "<!-- end of encoders -->\n"
HEADS = {"image": "image encoder", "text": "text encoder"}


def main():
    for name, text in pages().items():
        path = ROOT / name
        before, rest = path.read_text().split(START)
        _, after = rest.split(END)
        path.write_text(before + START + text + END + after)


def pages():
    """Return a dict from each document to the text between its marks."""
    return {
        "README.md": sentence(),
        "docs/guides/encoders.md": tables() + parity(),
    }


def sentence():
    """Return the names of all encoders, in two lines."""
    return "".join(
        f"* {HEADS[side]}s: {', '.join(names(side))}\n" for side in HEADS
    )


def names(side):
    """Return the usual names of encoders, without repetition."""
    found = [entry.name for _, entry in entries(side)]
    return sorted(dict.fromkeys(found), key=str.lower)


def entries(side):
    """Return the classes and entries of the library, without those of users."""
    return [(c, e) for c, e in registry.entries(side).items() if e.name]


def tables():
    """Return a table of each side."""
    parts = []
    for side, head in HEADS.items():
        last = {"image": "", "text": " tokenizer |"}[side]
        parts += [
            f"| {head} | class of KerasHub | `model_type` of `transformers` "
            f"| row 0 |{last}",
            f"|---|---|---|---|{last and '---|'}",
            *sorted(row(*item) for item in entries(side)),
            "",
        ]
    return "\n".join(parts)


def parity():
    """Return the table of what the slow test measured at base size."""
    found = {
        path.stem: json.loads(path.read_text())
        for path in sorted(RESULTS.glob("*.json"))
    }
    rows = sorted({name for results in found.values() for name in results})
    lines = [
        "",
        "Largest difference of all hidden states from `transformers` at base "
        "size (random",
        "weights, in shares of the largest value), and of states at words when "
        "padding changes:",
        "",
        f"| encoder | parameters | {' | '.join(found)} | padding |",
        f"|---|---|{'---|' * len(found)}---|",
    ]
    for name in rows:
        measured = [results.get(name) for results in found.values()]
        some = next(filter(None, measured))
        cells = [m and f"{m['difference']:.0e}" or "" for m in measured]
        # SigLIP was trained without a mask.
        leak = {None: "", 0: "0"}.get(some["leak"], "reads it")
        count = f"{some['parameters']:,}"
        lines.append(f"| {' | '.join([name, count, *cells, leak])} |")
    return "\n".join(lines) + "\n"


def row(cls, entry):
    """Return the row of an encoder."""
    kinds = dict.fromkeys(kind for f in entry.files for kind in f.types)
    types = ", ".join(f"`{kind}`" for kind in kinds) or "none"
    own = {"image": "class token", "text": "start token"}[entry.side]
    first = f"`{entry.summary}`" if entry.summary else own
    words = dict.fromkeys(f.tokens.kind for f in entry.files if f.tokens)
    last = f" {', '.join(f'`{kind}`' for kind in words)} |" if words else ""
    return f"| {entry.name} | `{cls.__name__}` | {types} | {first} |{last}"


if __name__ == "__main__":
    main()
