"""A small data set of every format, in exactly the files of its authors."""

import pathlib

import miniature_arrow
import miniature_captions
import miniature_pairs
import miniature_small
import miniature_vqa
import pytest

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write as writing

WRITERS = {
    "coco": miniature_captions.coco,
    "flickr30k": miniature_captions.flickr30k,
    "visual_genome": miniature_captions.visual_genome,
    "cc3m": miniature_captions.cc3m,
    "sbu": miniature_captions.sbu,
    "vqav2": miniature_vqa.vqav2,
    "vgqa": miniature_vqa.vgqa,
    "snli_ve": miniature_pairs.snli_ve,
    "nlvr2": miniature_pairs.nlvr2,
    "cifar10": miniature_small.cifar10,
    "cifar100": miniature_small.cifar100,
    "glue": miniature_small.glue,
    "own": miniature_small.own,
    "cc3m_annot": miniature_captions.cc3m_annot,
    "sbu_annot": miniature_captions.sbu_annot,
    "arrow_coco": miniature_arrow.coco,
    "arrow_flickr30k": miniature_arrow.flickr30k,
    "arrow_visual_genome": miniature_arrow.visual_genome,
    "arrow_cc3m": miniature_arrow.cc3m,
    "arrow_sbu": miniature_arrow.sbu,
    "arrow_vqav2": miniature_arrow.vqav2,
    "arrow_vgqa": miniature_arrow.vgqa,
    "arrow_snli_ve": miniature_arrow.snli_ve_tables,
    "arrow_nlvr2": miniature_arrow.nlvr2,
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
        definition=data.definition(split, protocol).definition,
    )
    return read.open_records(folder, split)
