"""Small CIFAR, GLUE and own data."""

import csv
import pickle

import numpy as np
from keras_bridgetower_drawings.training.easy import pictures as easy_vqa
from miniature_pictures import pictures
from miniature_pictures import write_lines

COLOURS = [colour.encode() for colour in easy_vqa.COLOURS]
SHAPES = [shape.encode() for shape in easy_vqa.SHAPES]


def _batch(numbers, labels):
    rows = [
        np.asarray(pictures()[n].image.resize((32, 32))).transpose(2, 0, 1)
        for n in numbers
    ]
    data = np.stack(rows).reshape(len(rows), 3072)
    return {b"batch_label": b"a batch", b"data": data} | labels(numbers)


def _pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    # The latest one whose arrays are as in the published files.
    path.write_bytes(pickle.dumps(content, protocol=3))


def cifar10(folder):
    inner = folder / "cifar-10-batches-py"

    def labels(numbers):
        colours = [pictures()[n].colour.encode() for n in numbers]
        return {b"labels": [COLOURS.index(colour) for colour in colours]}

    for i in range(5):
        numbers = range(4 * i, 4 * i + 4)
        _pickle(inner / f"data_batch_{i + 1}", _batch(numbers, labels))
    _pickle(inner / "test_batch", _batch(range(20, 24), labels))
    _pickle(inner / "batches.meta", {b"label_names": COLOURS, b"num_vis": 1})
    return folder, {}


def cifar100(folder):
    inner = folder / "cifar-100-python"

    def labels(numbers):
        item = [pictures()[n] for n in numbers]
        return {
            b"fine_labels": [COLOURS.index(s.colour.encode()) for s in item],
            b"coarse_labels": [SHAPES.index(s.shape.encode()) for s in item],
        }

    _pickle(inner / "train", _batch(range(20), labels))
    _pickle(inner / "test", _batch(range(20, 24), labels))
    names = {b"fine_label_names": COLOURS, b"coarse_label_names": SHAPES}
    _pickle(inner / "meta", names)
    return folder, {}


SENTENCES = ("sentence1", "sentence2")
SHOWN = ("It is red.", "Red it is.")
# By folder: the header of a file with labels, a row, and the columns of test.
GLUE = {
    "CoLA": (None, ("gj04", "1", "", 'It is "red.'), ("sentence",)),
    "SST-2": (("sentence", "label"), ("it is red", "1"), ("sentence",)),
    "MRPC": (
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        ("1", "7", "8", *SHOWN),
        ("#1 ID", "#2 ID", "#1 String", "#2 String"),
    ),
    "QQP": (
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        ("0", "1", "2", *SHOWN, "0"),
        ("question1", "question2"),
    ),
    "STS-B": (
        ("index", "genre", *SENTENCES, "score"),
        ("0", "news", *SHOWN, "3.8"),
        ("genre", *SENTENCES),
    ),
    "MNLI": (
        ("index", "genre", *SENTENCES, "label1", "gold_label"),
        ("0", "x", *SHOWN, "neutral", "contradiction"),
        ("genre", *SENTENCES),
    ),
    "QNLI": (
        ("index", "question", "sentence", "label"),
        ("0", *SHOWN, "not_entailment"),
        ("question", "sentence"),
    ),
    **{
        name: (
            ("index", *SENTENCES, "label"),
            ("0", *SHOWN, label),
            SENTENCES,
        )
        for name, label in (("RTE", "entailment"), ("WNLI", "1"))
    },
}


def glue(folder):
    for name, (header, row, columns) in GLUE.items():
        (folder / name).mkdir(parents=True)
        head = [header] if header else []
        known = dict(zip(header or (), row, strict=bool(header)))
        test = [known.get(column, row[-1]) for column in columns]
        tables = {
            "train": [*head, *[row] * 12],
            "dev": [*head, *[row] * 4],
            "test": [("index", *columns), ("0", *test)],
        }
        if name == "MNLI":
            for part in ("dev", "test"):
                tables[f"{part}_matched"] = tables[part]
                tables[f"{part}_mismatched"] = tables[part]
        for part, rows in tables.items():
            text = "".join("\t".join(cells) + "\n" for cells in rows)
            (folder / name / f"{part}.tsv").write_text(text)
    return folder, {"task_name": "rte"}


def own(folder, form=".csv"):
    """Questions about pictures below `images/`, one table for all."""
    rows = []
    for number, item in enumerate(pictures()):
        item.save(folder / "images" / f"{number}.jpg")
        rows += [
            {"image": f"images/{number}.jpg", "text": question, "answer": a}
            for question, a in item.questions
        ]
    write_table(folder / f"data{form}", rows)
    return folder, {}


def write_table(path, rows):
    if path.suffix == ".jsonl":
        return write_lines(path, rows)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
