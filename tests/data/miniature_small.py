"""Small CIFAR, GLUE and own data."""

import csv

import numpy as np
from keras_bridgetower_drawings.training.easy import pictures as easy_vqa
from miniature_pictures import pictures
from miniature_pictures import write_lines

COLOURS, SHAPES = [*easy_vqa.COLOURS], [*easy_vqa.SHAPES]


def _cifar(path, numbers, *kinds):
    """Write rows of labels, of each kind, and of pixels by channels."""
    rows = []
    for number in numbers:
        item = pictures()[number]
        labels = [kind.index(getattr(item, name)) for name, kind in kinds]
        pixels = np.asarray(item.image.resize((32, 32))).transpose(2, 0, 1)
        rows.append(bytes(labels) + pixels.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(rows))


def cifar10(folder):
    inner, kind = folder / "cifar-10-batches-bin", ("colour", COLOURS)
    for i in range(5):
        numbers = range(4 * i, 4 * i + 4)
        _cifar(inner / f"data_batch_{i + 1}.bin", numbers, kind)
    _cifar(inner / "test_batch.bin", range(20, 24), kind)
    # As in the published file, an empty line ends it.
    (inner / "batches.meta.txt").write_text("\n".join([*COLOURS, "", ""]))
    return folder, {}


def cifar100(folder):
    inner = folder / "cifar-100-binary"
    # The coarse class comes first.
    kinds = (("shape", SHAPES), ("colour", COLOURS))
    _cifar(inner / "train.bin", range(20), *kinds)
    _cifar(inner / "test.bin", range(20, 24), *kinds)
    (inner / "fine_label_names.txt").write_text("\n".join([*COLOURS, ""]))
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
        name: (("index", *SENTENCES, "label"), ("0", *SHOWN, label), SENTENCES)
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
