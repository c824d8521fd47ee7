"""Reads damaged tables and pickles in a process of its own.

`python fuzz_run.py SEED COUNT` makes mutants of each kind in a temporary
folder, reads each and prints how many were read and how many were refused. Any
other error is raised; a signal ends the process.
"""

import contextlib
import pathlib
import resource
import sys
import tempfile

import miniature_arrow
import miniature_small
import numpy as np

from keras_bridgetower.data.datasets import arrow
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


def write_tables(folder):
    miniature_arrow.visual_genome(folder)
    miniature_arrow.vqav2(folder)


# What writes the files; the data sets; how many bytes at the start of a file
# to damage mostly, since most bytes of a pickle are pixels, which may be
# anything; and a cache of opened files.
KINDS = {
    "arrow": (
        *(write_tables, ("arrow_visual_genome", "arrow_vqav2")),
        *(None, arrow.open_table),
    ),
    "cifar": (miniature_small.cifar100, ("cifar100",), 300, cifar._pixels),
}


def read(names, folder, cache):
    cache.cache_clear()
    for name in names:
        for draft in open_dataset(name, folder).split("train"):
            for picture in draft.pictures:
                picture.read()


def main(seed, count):
    for kind, values in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            message = run(pathlib.Path(folder), int(seed), int(count), *values)
        print(kind, *message)


def run(folder, seed, count, write, names, start, cache):
    """Return the numbers of mutants that were read and rejected."""
    rng = np.random.default_rng(seed)
    write(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    read(names, folder, cache)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = used * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    good = 0
    for _ in range(count):
        path = paths[rng.integers(len(paths))]
        data = path.read_bytes()
        head = data[: start if rng.random() < 0.7 else None]
        path.write_bytes(mutant(head, rng) + data[len(head) :])
        with contextlib.suppress(ValueError):
            read(names, folder, cache)
            good += 1
        path.write_bytes(data)
    return good, count - good


if __name__ == "__main__":
    main(*sys.argv[1:])
