"""The same miniatures in Arrow tables, as ViLT, METER and BridgeTower do."""

import pathlib
import tempfile

import miniature_originals

from keras_bridgetower.data.datasets.by_name import DATASETS
from keras_bridgetower.data.datasets.by_name import open_dataset

ORIGINALS = {
    "coco": miniature_originals.coco,
    "flickr30k": miniature_originals.flickr30k,
    "visual_genome": miniature_originals.visual_genome,
    "cc3m": miniature_originals.cc3m,
    "sbu": miniature_originals.sbu,
    "vqav2": miniature_originals.vqav2,
    "vgqa": miniature_originals.vgqa,
    "snli_ve": miniature_originals.snli_ve,
    "nlvr2": miniature_originals.nlvr2,
}


def write(folder, name, rows):
    import pyarrow as pa

    table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
        with pa.RecordBatchFileWriter(sink, table.schema) as writer:
            writer.write_table(table)


def original(name, folder):
    """Write the original files of a data set, and open them."""
    root, options = ORIGINALS[name](folder)
    return open_dataset(name, root, **options)


def tables(name, folder):
    protocols = DATASETS[f"arrow_{name}"].protocols.values()
    parts = {p for of in protocols for s in of.values() for p in s.parts}
    with tempfile.TemporaryDirectory() as place:
        data = original(name, pathlib.Path(place))
        for part in parts:
            rows = [_row(data, draft) for draft in data.read(part)]
            # Large tables are several files.
            write(folder, f"{part}_0", rows[:1])
            write(folder, f"{part}_1", rows[1:])
    return folder, {}


def _row(data, draft):
    samples, images = draft.samples, draft.read().images
    texts = [s.text for s in samples]
    named = [[data.labels[i] for i in s.labels] for s in samples]
    row = {"image": images[0], "split": "train", "image_id": draft.key}
    if data.task == "captions":
        return row | {"caption": texts}
    if data.task == "entailment":
        pairs = [["It is.", f"{text} "] for text in texts]
        return row | {
            "sentences": pairs,
            "labels": [s.labels[0] for s in samples],
        }
    if data.task == "nlvr2":
        return {
            **{"image_0": images[0], "image_1": images[1]},
            **{"questions": texts, "answers": [name for [name] in named]},
            "identifier": draft.key,
        }
    answered = any(named)
    return row | {
        "questions": texts,
        "question_id": [s.id for s in samples],
        "answers": named if answered else [],
        "answer_labels": [list(s.labels) for s in samples] if answered else [],
        "answer_scores": [list(s.scores) for s in samples] if answered else [],
    }
