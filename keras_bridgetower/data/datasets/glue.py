"""Reader of GLUE: sentences and pairs of sentences of nine text tasks."""

import dataclasses
import math
import warnings
from collections.abc import Callable

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import TAB_SEPARATED
from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.datasets.tables import label_id
from keras_bridgetower.data.datasets.tables import table_rows
from keras_bridgetower.data.records.format import SECOND_TEXT
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample


def every_row(path, keys, header):
    """Read the rows of a tab-separated file, by number from 1."""
    return dict(enumerate(table_rows(path, keys, header, **TAB_SEPARATED), 1))


def whole_rows(path, keys, header):
    """Read the rows as `every_row`, but drop short rows with a warning."""
    rows = every_row(path, (), header)
    short = [
        number
        for number, row in rows.items()
        if any(row.get(key, "") is None for key in keys)
    ]
    if short:
        warnings.warn(
            f"{len(short)} of {len(rows)} rows of {path} are cut short and "
            f"left out, the first is row {short[0]}.",
            stacklevel=2,
        )
    whole = {n: row for n, row in rows.items() if n not in {*short}}
    for number, row in whole.items():
        check_row(path, number, row, dict.fromkeys(keys, str))
    return whole


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """The file format of one task of GLUE.

    Args:
        folder: str, name of its folder.
        columns: tuple of str, columns of the texts in tab-separated files.
        label: str, column of the label in tab-separated files.
        names: tuple of str, the classes in the order of their ids.
        header: tuple of str, the columns of files with labels that lack a
            header; else None.
        validation: tuple of str, names of the validation parts.
        rows: function that reads a tab-separated file, such as `every_row`.
        fields: tuple of str, keys of the texts in JSON lines; None if they
            are those of `columns`.
    """

    folder: str
    columns: tuple
    label: str
    names: tuple
    header: tuple | None = None
    validation: tuple = ("dev",)
    rows: Callable = every_row
    fields: tuple | None = None


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")
GLUE_TASKS = {
    "cola": GlueTask(
        "CoLA",
        ("sentence",),
        "is_acceptable",
        ("unacceptable", "acceptable"),
        header=("source", "is_acceptable", "star", "sentence"),
    ),
    "sst2": GlueTask("SST-2", ("sentence",), "label", ("negative", "positive")),
    "mrpc": GlueTask(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        fields=PAIR,
    ),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        # The published file has some damaged rows.
        rows=whole_rows,
    ),
    "stsb": GlueTask("STS-B", PAIR, "score", ("similarity",)),
    "mnli": GlueTask(
        "MNLI",
        PAIR,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        validation=("dev_matched", "dev_mismatched"),
        fields=("premise", "hypothesis"),
    ),
    "qnli": GlueTask("QNLI", ("question", "sentence"), "label", ENTAILMENT),
    "rte": GlueTask("RTE", PAIR, "label", ENTAILMENT),
    "wnli": GlueTask("WNLI", PAIR, "label", ENTAILMENT[::-1]),
}


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
        self.labels = list(self.glue.names)
        splits = {"train": Split(("train",), "The training texts.")}
        for part in self.glue.validation:
            split = part.replace("dev", "validation")
            splits[split] = Split((part,), f"{part} of GLUE.")
            test = part.replace("dev", "test")
            splits[test] = Split((test,), f"{test} of GLUE, without labels.")
        self.protocols = {"honest": splits, "official": splits}

    def files(self, part):
        lines = f"{part.replace('dev', 'validation')}.jsonl"
        names = f"{part}.tsv", lines
        return ((*(f"{self.glue.folder}/{name}" for name in names), *names),)

    def drafts(self, part):
        path = self.path(*self.files(part)[0])
        columns, label, rows = self._read(path, not part.startswith("test"))
        keys = dict.fromkeys(columns, str)
        for number, row in rows.items():
            check_row(path, number, row, keys)
            # A tab inside a text must not separate it.
            text = SECOND_TEXT.join(
                row[column].replace(SECOND_TEXT, " ") for column in columns
            )
            target = ()
            # Test files lack labels, or have -1.
            if row.get(label) not in (None, -1) or not part.startswith("test"):
                target = self._target(path, number, label, row.get(label))
            sample = Sample(f"{part}-{number}", text, *target)
            yield Draft(sample.id, (), (sample,), part)

    def _read(self, path, labelled):
        """Return the columns of texts, that of labels, and rows by number."""
        glue = self.glue
        if path.suffix == ".jsonl":
            keys = {"label": (int, float, str)} if labelled else {}
            rows = dict(enumerate(json_lines(path, keys), 1))
            return glue.fields or glue.columns, "label", rows
        if not labelled:
            return glue.columns, None, glue.rows(path, glue.columns, None)
        keys = (*glue.columns, glue.label)
        return glue.columns, glue.label, glue.rows(path, keys, glue.header)

    def _target(self, path, number, key, label):
        if len(self.labels) == 1:
            return (0,), (_grade(path, number, key, label),)
        known = [*map(str, range(len(self.labels))), *self.labels]
        place = label_id(path, number, str(label), known, repr(key))
        return ((place % len(self.labels),),)


def _grade(path, number, key, label):
    try:
        grade = float(label)
    except (TypeError, ValueError):
        grade = math.nan
    if not 0 <= grade <= 5:
        raise ValueError(
            f"Each {key!r} of {path} must be a number from 0 to 5. Received: "
            f"{label!r} in row {number}"
        )
    return grade
