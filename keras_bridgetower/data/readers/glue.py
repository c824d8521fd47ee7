"""GLUE: sentences, or pairs of them, in tab-separated files or JSON lines."""

import dataclasses

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.files import TAB_SEPARATED
from keras_bridgetower.data.readers.files import check_row
from keras_bridgetower.data.readers.files import json_lines
from keras_bridgetower.data.readers.files import table_rows
from keras_bridgetower.data.record_format import SECOND_TEXT
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample

HIDDEN = "unlabelled"


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """How one task of GLUE is written.

    Args:
        folder: str, its folder.
        columns: names of the columns with texts in the tab-separated files.
        label: str, name of the column with the label there.
        fields: names of the texts in JSON lines.
        names: classes in the order of their ids.
        header: names of the columns where files with labels do not say them.
        validation: names of the validation parts.
    """

    folder: str
    columns: tuple
    label: str
    fields: tuple
    names: tuple
    header: tuple | None = None
    validation: tuple = ("dev",)


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")
GLUE_TASKS = {
    "cola": GlueTask(
        "CoLA",
        ("sentence",),
        "is_acceptable",
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("source", "is_acceptable", "star", "sentence"),
    ),
    "sst2": GlueTask(
        "SST-2", ("sentence",), "label", ("sentence",), ("negative", "positive")
    ),
    "mrpc": GlueTask(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        PAIR,
        ("not_equivalent", "equivalent"),
    ),
    "qqp": GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
    ),
    "stsb": GlueTask("STS-B", PAIR, "score", PAIR, ("similarity",)),
    "mnli": GlueTask(
        "MNLI",
        PAIR,
        "gold_label",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        validation=("dev_matched", "dev_mismatched"),
    ),
    "qnli": GlueTask(
        "QNLI",
        ("question", "sentence"),
        "label",
        ("question", "sentence"),
        ENTAILMENT,
    ),
    "rte": GlueTask("RTE", PAIR, "label", PAIR, ENTAILMENT),
    "wnli": GlueTask("WNLI", PAIR, "label", PAIR, ENTAILMENT[::-1]),
}


class GLUE(DataSet):
    """One task of GLUE.

    `<folder>/{train,dev,test}.tsv` as given out, or `{train,validation,
    test}.jsonl` with the fields of the `datasets` library and `label`. The
    two texts of a pair are one text with a tab between. STS-B, a regression,
    has one label whose score is the grade. Epochs are chosen on validation,
    as officially; the labels of test are not public.

    Args:
        root: path of the folder.
        task_name: str, one of cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte,
            wnli.
    """

    task = "text_classification"

    def __init__(self, root, task_name):
        super().__init__(root)
        if task_name not in GLUE_TASKS:
            raise ValueError(
                f"`task_name` must be one of {sorted(GLUE_TASKS)}. Received: "
                f"task_name={task_name!r}"
            )
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
        columns, label, rows = _READERS[path.suffix](self.glue, path, part)
        keys = dict.fromkeys(columns, str)
        for number, row in enumerate(rows, 1):
            check_row(path, number, row, keys)
            text = SECOND_TEXT.join(row[column] for column in columns)
            target = self._target(path, number, row.get(label))
            sample = Sample(f"{part}-{number}", text, *target)
            yield Draft(sample.id, (), (sample,), part)

    def _target(self, path, number, label):
        if label in (None, -1):
            return ()
        if len(self.labels) == 1:
            return (0,), (float(label),)
        known = {str(i): i for i in range(len(self.labels))}
        known |= {name: i for i, name in enumerate(self.labels)}
        if str(label) not in known:
            raise ValueError(
                f"Each label of {path} must be one of {list(known)}. "
                f"Received: {label!r} in row {number}"
            )
        return ((known[str(label)],),)


def _tab_separated(glue, path, part):
    labelled = not part.startswith("test")
    header = glue.header if labelled else None
    keys = (*glue.columns, glue.label) if labelled else glue.columns
    rows = table_rows(path, keys, header, **TAB_SEPARATED)
    return glue.columns, glue.label if labelled else HIDDEN, rows


def _json_lines(glue, path, part):
    return glue.fields, "label", json_lines(path, {})


_READERS = {".tsv": _tab_separated, ".jsonl": _json_lines}
