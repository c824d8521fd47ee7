"""Reads damaged tables and pickles in a process of its own.

`python fuzz_run.py SEED COUNT` makes mutants of each kind in a temporary
folder, reads each and prints how many were read and how many were refused. Any
other error is raised; a signal ends the process.
"""

import pathlib
import pickle
import resource
import sys
import tempfile

import numpy as np
import pyarrow as pa

from keras_bridgetower.data.datasets import arrow as tables
from keras_bridgetower.data.datasets import cifar
from keras_bridgetower.data.datasets.by_name import open_dataset

# In addition to the memory for the first mutant. Damage that needs more must be
# rejected before.
MEMORY = 2 * 2**30
WORDS = [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]


def mutant(data, rng):
    """Return a copy of some bytes with a random kind of damage."""
    data = bytearray(data)
    place = int(rng.integers(len(data)))
    kind = rng.integers(5)
    if kind == 0:
        for at in rng.integers(len(data), size=rng.integers(1, 9)):
            data[at] = rng.integers(256)
    elif kind == 1:
        del data[place:]
    elif kind == 2:
        word = int(rng.choice(np.array(WORDS, "uint64"))).to_bytes(8, "little")
        size = int(rng.choice([1, 2, 4, 8]))
        data[place : place + size] = word[:size]
    elif kind == 3:
        size = int(rng.integers(1, 65))
        start = int(rng.integers(len(data)))
        data[place : place + size] = data[start : start + size]
    else:
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def write(path, columns):
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink:
        with pa.RecordBatchFileWriter(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)


class Arrow:
    """Tables of captions and of nested lists of answers."""

    head = None

    def __init__(self, folder):
        count = 6
        picture = {"image": [b"\x89PNG" * 9] * count}
        ids = {"image_id": [f"{n}.jpg" for n in range(count)]}
        captions = [[f"a cat {n}", "zwei H\u00fcte"] for n in range(count)]
        self.files = {
            "vg.arrow": {**picture, **ids, "caption": captions},
            "vqav2_train_fix.arrow": {
                **picture,
                **ids,
                "questions": [["what?", "who?"]] * count,
                "answers": [[["a", "b"], ["a"]]] * count,
                "answer_labels": [[[0, 1], [0]]] * count,
                "answer_scores": [[[1.0, 0.3], [0.6]]] * count,
                "question_id": [[2 * n, 2 * n + 1] for n in range(count)],
            },
        }
        for name, columns in self.files.items():
            write(folder / name, columns)

    def read(self, folder):
        tables.open_table.cache_clear()
        for name in ("arrow_visual_genome", "arrow_vqav2"):
            for draft in open_dataset(name, folder).split("train"):
                for picture in draft.pictures:
                    picture.read()


class Cifar:
    """Pickles as Python 2 and its NumPy wrote them."""

    head = 300

    def __init__(self, folder):
        self.files = dict.fromkeys(
            f"cifar-100-python/{name}" for name in ("train", "test", "meta")
        )
        (folder / "cifar-100-python").mkdir()
        pixels = np.arange(4 * 3072).reshape(4, 3072).astype("uint8")
        content = {b"data": pixels, b"fine_labels": [0, 1, 1, 0]}
        for name in self.files:
            meta = {b"fine_label_names": [b"apple", b"bear"]}
            (folder / name).write_bytes(
                pickle.dumps(meta if name.endswith("meta") else content, 2)
            )

    def read(self, folder):
        cifar._pixels.cache_clear()
        for draft in open_dataset("cifar100", folder).split("train"):
            for picture in draft.pictures:
                picture.read()


KINDS = {"arrow": Arrow, "cifar": Cifar}


def main(seed, count):
    for kind, of in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            message = run(of, pathlib.Path(folder), int(seed), int(count))
        print(kind, *message)


def run(of, folder, seed, count):
    """Return the numbers of mutants that were read and rejected."""
    rng = np.random.default_rng(seed)
    built = of(folder)
    whole = {path: (folder / path).read_bytes() for path in built.files}
    built.read(folder)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = used * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    read = 0
    for _ in range(count):
        path = str(rng.choice([*whole]))
        data = whole[path]
        # Most bytes of a pickle are pixels, which may be anything.
        head = built.head if rng.random() < 0.7 else None
        damaged = mutant(data[:head], rng) + data[len(data[:head]) :]
        (folder / path).write_bytes(damaged)
        try:
            built.read(folder)
            read += 1
        except ValueError:
            pass
        (folder / path).write_bytes(data)
    return read, count - read


if __name__ == "__main__":
    main(*sys.argv[1:])
