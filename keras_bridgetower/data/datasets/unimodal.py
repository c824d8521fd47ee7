"""Readers of data sets for one tower: CIFAR's small pictures, GLUE's texts."""

import csv
import dataclasses
import functools
import io
import pathlib
import warnings

import numpy as np
from PIL import Image

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets import tables
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.records.format import SECOND_TEXT
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_json
from keras_bridgetower.files import read_most

SIDE = 32
# Training pictures that form the honest validation set.
HELD_OUT = 5000
# Maximum size in bytes. The largest published file has 154 million.
LARGEST = 500_000_000


@functools.lru_cache(maxsize=2)
def _rows(path, labels):
    """Read the rows of a file, each of labels and then pixels.

    Args:
        path: str.
        labels: int, bytes of the labels of a row.

    Returns:
        uint8 array `(rows, labels + 3072)`.
    """
    with open_regular(path) as file:
        data = read_most(file, LARGEST)
    size = labels + 3 * SIDE * SIDE
    if len(data) % size:
        raise ValueError(
            f"{path} must be of the binary version, with rows of {size} bytes. "
            f"Received: {len(data)} bytes"
        )
    return np.frombuffer(data, "uint8").reshape(-1, size)


@dataclasses.dataclass(frozen=True, slots=True)
class CifarPicture(tables.Picture):
    """A picture in a CIFAR file, read as a PNG file.

    Args:
        path: str, path of the file.
        labels: int, bytes of the labels before it.
        row: int, position of the picture in the file.
    """

    path: str
    labels: int
    row: int

    def read(self):
        pixels = _rows(self.path, self.labels)[self.row, self.labels :]
        pixels = pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        return file.getvalue()


class Cifar(DataSet, published="cifar"):
    """Abstract: the binary version, pictures each with the number of a class.

    The official protocol chooses the best epoch on the test set. The honest
    protocol chooses it on the last 5,000 training pictures, and does not train
    on them.

    Attributes:
        folder: str.
        names: str, the file with the names of the classes.
        row_labels: int, labels of a picture, of which the last one is read.
        batches: dict from `"train"` and `"test"` to names of files.
    """

    task = "image_classification"
    folder = names = row_labels = None
    batches = {}

    @functools.cached_property
    def labels(self):
        lines = tables.text_lines(self.path(*self._paths(self.names)))
        return [line.strip() for line in lines if line.strip()]

    def files(self, part):
        batches = self.batches[part.split("_")[0]]
        names = *(f"{name}.bin" for name in batches), self.names
        return tuple(self._paths(name) for name in names)

    def drafts(self, part):
        file, count = part.split("_")[0], self.row_labels
        rows = []
        for name in self.batches[file]:
            path = str(self.path(*self._paths(f"{name}.bin")))
            labels = _rows(path, count)[:, count - 1].tolist()
            rows += [
                (f"{name}-{row}", CifarPicture(path, count, row), label)
                for row, label in enumerate(labels)
            ]
        cut = max(len(rows) - HELD_OUT, len(rows) // 2)
        parts = {"train_rest": rows[:cut], "train_held_out": rows[cut:]}
        for key, picture, label in parts.get(part, rows):
            yield Draft(key, (picture,), (Sample(key, "", (label,)),), file)

    def _paths(self, name):
        return f"{self.folder}/{name}", name


class Cifar10(Cifar):
    """CIFAR-10: `cifar-10-batches-bin/`."""

    folder, names, row_labels = "cifar-10-batches-bin", "batches.meta.txt", 1
    batches = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }


class Cifar100(Cifar):
    """CIFAR-100 with its fine classes: `cifar-100-binary/`."""

    folder, names, row_labels = "cifar-100-binary", "fine_label_names.txt", 2
    batches = {"train": ("train",), "test": ("test",)}


# By task: its folder; the `columns` of the texts and of the `label` in
# tab-separated files, the `header` of those with labels if they lack one; the
# classes; the `validation` parts, by default dev; the keys of the texts in JSON
# lines, by default `columns`; and whether the published file has damaged rows.
GLUE_TASKS = read_json(pathlib.Path(__file__).with_name("glue.json"))


class GLUE(DataSet):
    """One task of GLUE.

    Files: `<folder>/{train,dev,test}.tsv` as published, or `{train,validation,
    test}.jsonl` with the keys of the `datasets` library. The two texts of a
    pair are joined by a tab. STS-B, a regression, has one label, whose score
    is the value to predict. Damaged rows of QQP are left out, with a warning
    that counts them. The best epoch is chosen on the validation set, as usual;
    the labels of the test set are not public.

    Args:
        root: path of the folder.
        task_name: str, one of cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte,
            wnli.
        outside: bool, as in `DataSet`.
    """

    task = "text_classification"

    def __init__(self, root, task_name, outside=False):
        super().__init__(root, outside)
        check_choice("task_name", task_name, sorted(GLUE_TASKS))
        self.glue = GLUE_TASKS[task_name]
        self.labels = self.glue["names"]
        # Files have names of classes, or their numbers.
        names = enumerate(self.labels)
        self._ids = {key: i for i, name in names for key in (name, str(i))}
        splits = {"train": Split(["train"], "The training texts.")}
        for part in self.glue.get("validation", ["dev"]):
            split = part.replace("dev", "validation")
            splits[split] = Split([part], f"{part} of GLUE.")
            test = part.replace("dev", "test")
            words = f"{test} of GLUE, whose published labels are hidden."
            splits[test] = Split([test], words)
        self.protocols = {"honest": splits, "official": splits}

    def files(self, part):
        lines = f"{part.replace('dev', 'validation')}.jsonl"
        names = f"{part}.tsv", lines
        return ((*(f"{self.glue['folder']}/{name}" for name in names), *names),)

    def drafts(self, part):
        [path] = self.paths(part)
        labelled = not part.startswith("test")
        columns, label = self.glue["columns"], self.glue["label"]
        if path.suffix == ".jsonl":
            columns, label = self.glue.get("fields", columns), "label"
            rows = dict(enumerate(tables.json_lines(path), 1))
        else:
            rows = self._tab_separated(path, labelled)
        for number, row in rows.items():
            # A tab inside a text must not separate it.
            text = SECOND_TEXT.join(
                row[column].replace(SECOND_TEXT, " ") for column in columns
            )
            # Hidden labels of a test set are -1 or have no column.
            hidden = not labelled and row.get(label, -1) in (None, -1, "-1")
            target = () if hidden else self._target(row[label])
            sample = Sample(f"{part}-{number}", text, *target)
            yield Draft(sample.id, (), (sample,), part)

    def _tab_separated(self, path, labelled):
        """Return the rows of a file by number, of QQP without short ones."""
        table = csv.DictReader(
            tables.text_lines(path),
            self.glue.get("header") if labelled else None,
            delimiter="\t",
            quoting=csv.QUOTE_NONE,
        )
        rows = dict(enumerate(table, 1))
        if self.glue.get("has_short_rows"):
            short = [n for n, row in rows.items() if None in row.values()]
            for number in short:
                del rows[number]
            if short:
                warnings.warn(
                    f"{len(short)} rows of {path} are cut short and left out, "
                    f"the first is row {short[0]}.",
                    stacklevel=2,
                )
        return rows

    def _target(self, label):
        if len(self.labels) > 1:
            return ((self._ids[str(label)],),)
        grade = float(label)
        if not 0 <= grade <= 5:
            raise ValueError(f"A grade must be from 0 to 5. Received: {label}")
        return (0,), (grade,)
