"""Own data: a table of `image,text[,answer|label]` and a folder of pictures."""

import collections
import functools
import hashlib

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.base import picture_in
from keras_bridgetower.data.readers.files import check_row
from keras_bridgetower.data.readers.files import comma_rows
from keras_bridgetower.data.readers.files import json_lines
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample
from keras_bridgetower.metrics.vqa_answers import answer_list
from keras_bridgetower.metrics.vqa_answers import normalize_answer
from keras_bridgetower.metrics.vqa_answers import soft_scores

# What is learnt follows from the columns.
TASKS = {
    ("answer", "image", "text"): "vqa",
    ("image", "text"): "captions",
    ("image", "label", "text"): "entailment",
    ("image", "label"): "image_classification",
    ("label", "text"): "text_classification",
}
COLUMNS = ("answer", "image", "label", "text")
SPLITS = ("train", "validation", "test")
# A table that is not divided: of ten pictures one each.
HELD_OUT = {0: "test", 1: "validation"}
READERS = {".jsonl": json_lines, ".csv": lambda path, keys: comma_rows(path)}


class OwnData(DataSet):
    """A table and a folder of pictures.

    `train`, `validation` and `test`, each `.csv` (with a header) or `.jsonl`;
    or one table `data`, of which a tenth of the pictures goes to test and a
    tenth to validation, by a sum over their names. The columns, of which
    `id` may be one more, say the task: `image,text,answer` questions,
    `image,text` captions, `image,text,label` entailment or any other classes
    of pairs, `image,label` or `text,label` classes of one of them. An answer
    is a string, whose score is 1, or in JSON a list of what ten people said,
    whose scores are those of VQAv2.

    Args:
        root: path of the folder with the tables; `image` is a path below it.
        min_count: int, how often an answer must occur to be a class.
        labels: str, the classes in their order with commas between; by
            default those of all tables, answers in the order of their first
            occurrence and labels sorted.
    """

    def __init__(self, root, min_count=1, labels=None):
        super().__init__(root)
        self.min_count = int(min_count)
        self._labels = labels and [x.strip() for x in labels.split(",")]
        self._files = {
            path.stem: path
            for path in sorted(self.root.iterdir())
            if path.suffix in READERS and path.stem in (*SPLITS, "data")
        }
        names = [name for name in SPLITS if name in self._files]
        words = {name: f"The table {name}." for name in names}
        if "data" in self._files:
            words = {
                name: "Of the table data, by pictures; a tenth each for "
                "validation and test."
                for name in SPLITS
            }
        if not words:
            raise ValueError(
                f"{self.root} must hold data, or train, validation and test, "
                "as .csv or .jsonl. Received: no such file"
            )
        splits = {n: Split((n,), of) for n, of in words.items()}
        self.protocols = {"honest": splits, "official": splits}

    @functools.cached_property
    def task(self):
        found = {
            tuple(c for c in COLUMNS if row.get(c) is not None)
            for rows in self._rows.values()
            for row in rows
        }
        tasks = {TASKS.get(columns) for columns in found}
        if len(tasks) != 1 or None in tasks:
            raise ValueError(
                "All rows must have the columns of one task: "
                f"{[','.join(columns) for columns in TASKS]}. Received: "
                f"{[','.join(columns) for columns in sorted(found)]} in "
                f"{[path.name for path in self._files.values()]}"
            )
        return tasks.pop()

    @functools.cached_property
    def labels(self):
        rows = [row for rows in self._rows.values() for row in rows]
        if self._labels or self.task == "captions":
            return self._labels or []
        if self.task == "vqa":
            given = [
                {"multiple_choice_answer": str(answer)}
                for row in rows
                for answer in _answers(row)
            ]
            return answer_list(given, min_count=self.min_count)
        return sorted({str(row["label"]) for row in rows})

    def files(self, part):
        return ((self._file(part).name,),)

    def drafts(self, part):
        path = self._file(part)
        keys = dict.fromkeys(_columns(self.task) & {"image", "text"}, str)
        targets = _TARGETS[self.task]
        ids = {label: i for i, label in enumerate(self.labels)}
        samples = collections.defaultdict(list)
        for number, row in enumerate(self._rows[path.stem], 1):
            check_row(path, number, row, keys)
            key = row.get("image") or f"{path.stem}-{number}"
            if path.stem == "data" and _place(key) != part:
                continue
            target = targets(path, number, row, ids)
            if target is not None:
                name = str(row.get("id") or f"{path.stem}-{number}")
                sample = Sample(name, row.get("text") or "", *target)
                samples[key].append(sample)
        for key, of_key in samples.items():
            pictures = (picture_in(self.root, key),) * ("image" in keys)
            yield Draft(key, pictures, tuple(of_key), part)

    def _file(self, part):
        return self._files.get(part) or self._files["data"]

    @functools.cached_property
    def _rows(self):
        return {
            name: READERS[path.suffix](path, {})
            for name, path in self._files.items()
        }


def _columns(task):
    (columns,) = (c for c, name in TASKS.items() if name == task)
    return set(columns)


def _answers(row):
    answer = row["answer"]
    return answer if isinstance(answer, list) else [answer]


def _place(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return HELD_OUT.get(total % 10, "train")


def _no_target(path, number, row, ids):
    return ()


def _answer_target(path, number, row, ids):
    answer = row["answer"]
    if isinstance(answer, list):
        scores = soft_scores([str(text) for text in answer])
    else:
        scores = {normalize_answer(str(answer)): 1.0}
    known = {ids[a]: s for a, s in scores.items() if a in ids}
    return (tuple(known), tuple(known.values())) if known else None


def _label_target(path, number, row, ids):
    if str(row["label"]) not in ids:
        raise ValueError(
            f"Each label of {path} must be one of {list(ids)}. Received: "
            f"{row['label']!r} in row {number}"
        )
    return ((ids[str(row["label"])],),)


_TARGETS = {
    "vqa": _answer_target,
    "captions": _no_target,
    "entailment": _label_target,
    "image_classification": _label_target,
    "text_classification": _label_target,
}
