"""A small data set of every format, in exactly the files of its authors."""

import functools
import pathlib

import miniature_arrow
import miniature_originals
import miniature_small
import pytest

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write as writing

WRITERS = {
    **miniature_arrow.ORIGINALS,
    "cifar10": miniature_small.cifar10,
    "cifar100": miniature_small.cifar100,
    "glue": miniature_small.glue,
    "own": miniature_small.own,
    "cc3m_annot": miniature_originals.cc3m_annot,
    "sbu_annot": miniature_originals.sbu_annot,
    **{
        f"arrow_{name}": functools.partial(miniature_arrow.tables, name)
        for name in miniature_arrow.ORIGINALS
    },
}


def miniature(name, folder):
    """Write a data set; return the `(root, options)` of `open_dataset`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[name](folder)


def opened(name, folder):
    """Write and open a data set."""
    if name.startswith("arrow"):
        pytest.importorskip("pyarrow")
    root, options = miniature(name, folder)
    return open_dataset(name, root, **options)


def built(data, folder, split, protocol="honest"):
    """Build a split and open its reader."""
    writing.write_shards(
        folder,
        split,
        data.split(split, protocol),
        task=data.task,
        labels=data.labels,
        definition=data.definitions(protocol)[split].definition,
    )
    return read.open_records(folder, split)
