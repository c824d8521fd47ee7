"""Injects faults in the files of data sets and runs.

KERAS_BACKEND=torch python tests/faults_run.py

writes the table of `docs/faults.md`, which tells how a fault may end.
"""

import collections
import contextlib
import json
import pathlib
import re
import shutil
import tempfile
import traceback
import warnings

import numpy as np
import streams

import keras_bridgetower
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import read as records
from keras_bridgetower.training.runs import checks
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs.places import RunFolder

PACKAGE = pathlib.Path(keras_bridgetower.__file__).parent
TABLE = PACKAGE.parent / "docs" / "faults.md"
# Written by hand; the last section of the document.
PROMISES = PACKAGE.parent / "tests" / "contracts" / "promises.md"
OUTCOMES = ("typed", "as written", "silent", "raw")
HUGE = (2**31, 2**63, 10**30, -1, 1e308, None, "x", [], {}, True)


INDEX, OFFSETS = "`index.json`", "offsets"
MANIFEST, STATE = "`manifest.json`", "`state.safetensors`"


def flip_a_bit(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def cut(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(len(data))])


def change_a_letter(path, rng):
    text = path.read_text()
    places = [i for i, c in enumerate(text) if c.isalpha()]
    place = places[rng.integers(len(places))]
    letter = "z" if text[place] != "z" else "y"
    path.write_text(text[:place] + letter + text[place + 1 :])


def _places(value, found=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield value, key
        if isinstance(part, (dict, list)):
            yield from _places(part)


def edit(change):
    def fault(path, rng):
        content = json.loads(path.read_text())
        places = list(_places(content))
        owner, key = places[rng.integers(len(places))]
        change(owner, key, rng)
        path.write_text(json.dumps(content, indent=1))

    return fault


def remove(owner, key, rng):
    del owner[key]


def make_huge(owner, key, rng):
    owner[key] = HUGE[rng.integers(len(HUGE))]


def swap_with_another(path, rng):
    others = sorted(set(path.parent.glob("*.offsets.npy")) - {path})
    other = others[rng.integers(len(others))]
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def swap_rows(path, rng):
    rows = np.load(path)
    one, two = rng.choice(len(rows), 2, replace=False)
    rows[[one, two]] = rows[[two, one]]
    np.save(path, rows)


def huge_offsets(path, rng):
    rows = np.load(path)
    name = form.OFFSETS.names[rng.integers(4)]
    rows[name][rng.integers(len(rows))] = np.iinfo(rows[name].dtype).max
    np.save(path, rows)


JSON = {
    "a bit flipped": flip_a_bit,
    "cut": cut,
    "a letter changed": change_a_letter,
    "a key or entry missing": edit(remove),
    "a huge number or another type": edit(make_huge),
}
FAULTS = {
    **{(INDEX, name): fault for name, fault in JSON.items()},
    (OFFSETS, "a bit flipped"): flip_a_bit,
    (OFFSETS, "cut"): cut,
    (OFFSETS, "of another shard"): swap_with_another,
    (OFFSETS, "rows swapped"): swap_rows,
    (OFFSETS, "a huge number"): huge_offsets,
    **{(MANIFEST, name): fault for name, fault in JSON.items()},
    (STATE, "a bit flipped"): flip_a_bit,
    (STATE, "cut"): cut,
}


def data_set(folder):
    streams.write(folder, [streams.record("vqa", i) for i in range(16)])
    return folder


def run(folder):
    rng = np.random.default_rng(0)
    arrays = {f"model/{i}/kernel": rng.random((8, 8)) for i in range(3)}
    facts = {
        "position": {"epoch": 1, "step": 3},
        "logs": {"val_score": 0.5},
        "loss_is_finite": True,
        "settings": {"seed": 0},
        "stream": {"steps_per_epoch": 6},
    }
    RunFolder(folder).write(9, arrays, facts)
    return folder


def read_data_set(folder):
    reader = records.open_records(folder, "train")
    items = [reader.sample(i) for i in range(len(reader))]
    return items, reader.labels, reader.task, reader.sources, reader.definition


def read_run(folder):
    arrays, facts = RunFolder(folder).newest()
    position = checks.saved_position(facts, 6)
    return {k: a.tolist() for k, a in arrays.items()}, facts, position


KINDS = {
    INDEX: (data_set, read_data_set, "index.json"),
    OFFSETS: (data_set, read_data_set, "train-00001-of-00004.offsets.npy"),
    MANIFEST: (run, read_run, "step-000000009/" + folders.MANIFEST),
    STATE: (run, read_run, "step-000000009/" + folders.STATE),
}


def outcome(read, folder, want):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(folder)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        ours = isinstance(error, ValueError) and last.startswith(str(PACKAGE))
        return "typed" if ours else "raw", error
    return "as written" if found == want else "silent", None


def inject(kind, fault, count):
    """Return counted outcomes of a fault, and a list of what went wrong."""
    make, read, name = KINDS[kind]
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        whole = make(pathlib.Path(folder) / "whole")
        want = read(whole)
        for number in range(count):
            copy = pathlib.Path(folder) / "copy"
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(copy)
            shutil.copytree(whole, copy)
            before = (copy / name).read_bytes()
            fault(copy / name, np.random.default_rng([0, number]))
            how, error = outcome(read, copy, want)
            changed = before != (copy / name).read_bytes()
            counts[how] += changed
            if how in ("silent", "raw"):
                wrong.append((number, how, repr(error)[:300]))
    return counts, wrong


def table(rows):
    lines = [
        "| file | fault | injected | typed | as written | silent | raw |",
        "|---|---|---|---|---|---|---|",
    ]
    for (kind, name), counts in rows.items():
        numbers = [sum(counts.values()), *(counts[o] for o in OUTCOMES)]
        lines.append(f"| {kind} | {name} | " + " | ".join(map(str, numbers)))
        lines[-1] += " |"
    return "\n".join(lines) + "\n"


def written(text, count):
    """Return the document with a new table, and what went wrong."""
    rows, wrong = {}, []
    for (kind, name), fault in FAULTS.items():
        rows[kind, name], found = inject(kind, fault, count)
        wrong += [(kind, name, *one) for one in found]
    before, _, after = re.split(r"(?m)((?:^\|.*\n)+)", text, maxsplit=1)
    return before + table(rows) + after, wrong


if __name__ == "__main__":
    text, wrong = written(TABLE.read_text(), 150)
    TABLE.write_text(text)
    print(*wrong, sep="\n")
