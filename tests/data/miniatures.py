"""A small data set of every format, in exactly the files of its authors."""

import pathlib
import tempfile

import miniature_originals

from keras_bridgetower.data.datasets.by_name import DATASETS
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write as writing

# Data sets that ViLT, METER and BridgeTower keep in Arrow tables, too.
OF_TABLES = "arrow_"
IN_TABLES = [
    name.removeprefix(OF_TABLES) for name in DATASETS if OF_TABLES in name
]


def miniature(name, folder):
    """Write a data set; return the `(root, options)` of `open_dataset`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if OF_TABLES in name:
        return _tables(name, folder), {}
    return getattr(miniature_originals, name)(folder)


def opened(name, folder):
    """Write and open a data set."""
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


def write_arrow(folder, name, rows):
    import pyarrow as pa

    table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
        with pa.RecordBatchFileWriter(sink, table.schema) as writer:
            writer.write_table(table)


def _tables(name, folder):
    protocols = DATASETS[name].protocols.values()
    parts = {p for of in protocols for s in of.values() for p in s.parts}
    with tempfile.TemporaryDirectory() as place:
        data = opened(name.removeprefix(OF_TABLES), place)
        for part in parts:
            rows = [_row(data, draft) for draft in data.read(part)]
            # Large tables are several files.
            write_arrow(folder, f"{part}_0", rows[:1])
            write_arrow(folder, f"{part}_1", rows[1:])
    return folder


def _row(data, draft):
    samples, images = draft.samples, draft.read().images
    texts = [s.text for s in samples]
    ids = [list(s.labels) for s in samples]
    named = [[data.labels[i] for i in labels] for labels in ids]
    if data.task == "nlvr2":
        row = {"image_0": images[0], "image_1": images[1]}
        row |= {"questions": texts, "answers": [name for [name] in named]}
        return row | {"identifier": draft.key}
    row = {"image": images[0], "split": "train", "image_id": draft.key}
    if data.task == "captions":
        return row | {"caption": texts}
    if data.task == "entailment":
        pairs = [["It is.", f"{text} "] for text in texts]
        return row | {"sentences": pairs, "labels": [i for [i] in ids]}
    answered = any(named)
    return row | {
        "questions": texts,
        "question_id": [s.id for s in samples],
        "answers": named if answered else [],
        "answer_labels": ids if answered else [],
        "answer_scores": [list(s.scores) for s in samples] if answered else [],
    }
