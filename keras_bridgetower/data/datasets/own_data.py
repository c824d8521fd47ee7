"""`OwnData`: a user's own data set, from tables and a folder of pictures."""

import collections
import difflib
import functools
import hashlib
import itertools
import os
import typing

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.captions import ENTAILMENT_LABELS
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.datasets.tables import comma_rows
from keras_bridgetower.data.datasets.tables import json_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores

# Tasks by their columns, which are in the order of `COLUMNS`.
TASKS = {
    ("answer", "image", "text"): "vqa",
    ("image", "text"): "captions",
    ("image", "label", "text"): "entailment",
    ("image", "label"): "image_classification",
    ("label", "text"): "text_classification",
}
COLUMNS = ("answer", "image", "label", "text")
# The column of the user's own ids of rows.
ID = "id"
# Names with at least this similarity to a column are mistakes: "answers",
# "anwser".
ALIKE = 0.8
SPLITS = ("train", "validation", "test")
# Name of a table with all data, which is divided into splits.
WHOLE = "data"
READERS = {".jsonl": json_lines, ".csv": comma_rows}
# A tenth of the pictures in a single table is for each of these, by a hash.
_HELD_OUT = {0: "test", 1: "validation"}
# Minimum number of people whose answers are scored by VQAv2's rule, by which
# three of them have to agree.
_PEOPLE = 10


class OwnData(DataSet):
    """A table and a folder of pictures.

    There are tables `train`, `validation` and `test`, or one table `data`.
    Each is a `.csv` file (with a header, and quotes around texts with commas)
    or a `.jsonl` file. Of `data`, a tenth of the pictures is for testing and a
    tenth for validation, chosen by a hash of their names.

    The columns determine the task: `image,text,answer` are questions,
    `image,text` captions, `image,text,label` entailment or other classes of
    pairs, `image,label` and `text,label` classes of pictures and of texts. A
    column `id` may be added. Columns with other names are not read. A name
    similar to one of these is an error.

    An answer is a string, or in JSON a list with the answers of several
    people. Its score is the share of people who gave it, so 1 for a string,
    or VQAv2's score from ten people on. Questions without a class among their
    answers are left out of the training set. The other sets keep them, and
    count every answer to them as wrong.

    Args:
        root: path of the folder of the tables. `image` is a path below it;
            links must not leave it.
        min_count: int, minimum number of occurrences of an answer that is a
            class.
        labels: str, the classes in their order, separated by commas. By
            default they come from all tables: answers in order of occurrence,
            labels sorted, as numbers if all are integers. Labels of entailment
            are contradiction, neutral and entailment.
        outside: bool. If True, pictures outside `root` are read too, by
            absolute paths, `..` or links. Set it only if you trust the tables,
            which can then name any file.
    """

    def __init__(self, root, min_count=1, labels=None, outside=False):
        super().__init__(root, outside)
        self.min_count = int(min_count)
        self._labels_argument = labels
        self._files = _find_tables(self.root)
        for table in self._files.values():
            self.check_inside(table.absolute(), "Each table")
        whole = (
            "Of the table data, by pictures; a tenth each for validation and "
            "test."
        )
        splits = {
            name: Split(
                [name], whole if WHOLE in self._files else f"The table {name}."
            )
            for name in SPLITS
            if {name, WHOLE} & {*self._files}
        }
        self.protocols = {"honest": splits, "official": splits}

    @property
    def task(self):
        return self._content[0]

    @property
    def labels(self):
        return self._content[1]

    @functools.cached_property
    def _content(self):
        """Return the task, the labels, and the samples by part and key."""
        task, tables = _read_tables(self._files)
        if self._labels_argument:
            labels = _parse_labels(self._labels_argument, task)
        else:
            rows = itertools.chain(*tables.values())
            labels = _find_labels(task, rows, self.min_count)
        return task, labels, self._samples(task, tables, labels)

    def files(self, part):
        table = self._files.get(part) or self._files[WHOLE]
        return ((table.name,),)

    def drafts(self, part):
        folder = os.path.join(self.root, "")
        task, _, samples_by_part = self._content
        for key, samples in samples_by_part[part].items():
            pictures = ()
            if task != "text_classification":
                # If the key is an absolute path, `join` returns just the key.
                pictures = (FilePicture(os.path.join(folder, key)),)
            if (task, part) == ("vqa", "train"):
                samples = [sample for sample in samples if sample.labels]
            if samples:
                yield Draft(key, pictures, tuple(samples), part)

    def _samples(self, task, tables, labels):
        """Return lists of samples by part and key of the record."""
        ids = {label: i for i, label in enumerate(labels)}
        parts = {
            part: collections.defaultdict(list)
            for part in self.protocols["honest"]
        }
        for table, rows in tables.items():
            # Many rows have equal pictures and targets: compute each once.
            what = f"Each image of {self._files[table]}"
            key_of = functools.cache(functools.partial(self._key, what))
            target_of = functools.cache(functools.partial(_target, task, ids))
            for number, row in enumerate(rows, 1):
                name = f"{table}-{number}"
                key = name if row.image is None else key_of(row.image)
                part = _split(key) if table == WHOLE else table
                id = name if row.id is None else str(row.id)
                try:
                    target = target_of(row.target)
                except KeyError as error:
                    raise ValueError(
                        f"Each label must be one of {labels}. Received: "
                        f"{error!s:.100} in row {number} of "
                        f"{self._files[table]}"
                    ) from error
                text = "" if row.text is None else row.text
                sample = Sample(id, text, *target)
                parts[part][key].append(sample)
                # Free the row, which its sample replaces.
                rows[number - 1] = None
        return parts

    def _key(self, what, image):
        self.check_inside(image, what)
        [folder] = self._folders
        return folder.key(image)


class _Row(typing.NamedTuple):
    # The path as written in the table, or None.
    image: str | None
    text: str | None
    # The label, or the answers of all people; empty for captions.
    target: tuple
    id: object


def _find_tables(folder):
    """Return the paths of the tables in a folder, by their names.

    Raises:
        ValueError: there is no table, or it is ambiguous which ones to use.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READERS and path.stem in (*SPLITS, WHOLE)
    ]
    tables = {path.stem: path for path in found}
    if len(tables) < max(1, len(found)) or (WHOLE in tables and len(found) > 1):
        raise ValueError(
            f"{folder} must hold either one table data, or one each of train, "
            "validation and test, as .csv or .jsonl. Received: "
            f"{[path.name for path in found]}"
        )
    return tables


def _read_tables(tables):
    """Read the rows of tables of one task.

    Args:
        tables: dict from names of tables to paths.

    Returns:
        `(task, rows)`, the second a dict from names of tables to lists of
        `_Row`.

    Raises:
        ValueError: the columns are of no task or of several, a name is similar
            to that of a column, or a label is missing.
    """
    found, known = {}, {}
    for name, path in tables.items():
        rows = found[name] = []
        # Equal targets share one object, to save memory.
        shared = {}
        table = READERS[path.suffix.lower()](path)
        for number, row in enumerate(table, 1):
            where = f"row {number} of {path}: {row!r:.200}"
            cells = {k: v for k, v in row.items() if v is not None}
            names = tuple(cells)
            if names not in known:
                _check_names(names, path, where)
                columns = tuple(c for c in COLUMNS if c in cells)
                known[names] = columns
                if {*known.values()} != {columns} or columns not in TASKS:
                    allowed = [",".join(columns) for columns in TASKS]
                    raise ValueError(
                        f"All rows must have the columns of one task: {allowed}"
                        f". Received: {', '.join(names)} in {where}"
                    )
            target = _answers(cells, where)
            # An empty cell of CSV is no id, but the number 0 is one.
            id = None if cells.get(ID) == "" else cells.get(ID)
            target = shared.setdefault(target, target)
            rows.append(_Row(cells.get("image"), cells.get("text"), target, id))
    [columns] = {*known.values()}
    return TASKS[columns], found


def _check_names(names, path, where):
    """Raise if a column is misspelled, and so would not be read."""
    for name in {*names} - {*COLUMNS, ID}:
        plain = name.strip().casefold()
        alike = difflib.get_close_matches(plain, COLUMNS, 1, ALIKE)
        if alike or plain == ID:
            raise ValueError(
                f"{path} must spell the column {(*alike, ID)[0]!r} exactly: "
                f"{name!r} is similar and would not be read. Received: {where}"
            )


def _answers(cells, where):
    """Return the answers of all people, or the label, as a tuple of str."""
    given = cells.get("answer", cells.get("label"))
    if given is None:
        return ()
    answers = given if isinstance(given, list) else [given]
    if not answers or not all(
        isinstance(answer, str | int | float) and str(answer).strip()
        for answer in answers
    ):
        raise ValueError(
            "An answer or label must be a text or number, or a list of "
            f"answers. Received: {given!r:.100} in {where}"
        )
    return tuple(map(str, answers))


def _split(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return _HELD_OUT.get(total % 10, "train")


def _parse_labels(text, task):
    """Return the labels in a string, each of which must occur once."""
    labels = names = [name.strip() for name in text.split(",")]
    if task == "vqa":
        labels = [normalize_answer(name) for name in names]
    if "" in names or len({*labels}) < len(labels):
        raise ValueError(
            "`labels` must be classes with commas between, each there once. "
            f"Received: labels={text!r}, which are {labels}"
        )
    return labels


def _find_labels(task, rows, min_count):
    """Return the classes of all rows in their order."""
    if task == "vqa":
        spellings = collections.Counter(
            answer for row in rows for answer in row.target
        )
        counts = collections.Counter()
        # Normalizing is slow, so each spelling is normalized only once.
        for answer, count in spellings.items():
            counts[normalize_answer(answer)] += count
        return [label for label, n in counts.items() if n >= min_count]
    labels = sorted({label.strip() for row in rows for label in row.target})
    if task == "entailment" and {*labels} <= {*ENTAILMENT_LABELS}:
        return ENTAILMENT_LABELS
    try:
        return sorted(labels, key=int)
    except ValueError:
        return labels


def _target(task, ids, answers):
    """Return the label ids of a row, and their scores if they have any."""
    if task == "captions":
        return ()
    if task != "vqa":
        [label] = answers
        return ((ids[label.strip()],),)
    if len(answers) >= _PEOPLE:
        scores = soft_scores(list(answers))
    else:
        counts = collections.Counter(map(normalize_answer, answers))
        scores = {text: n / len(answers) for text, n in counts.items()}
    known = {ids[a]: s for a, s in scores.items() if a in ids}
    return tuple(known), tuple(known.values())
