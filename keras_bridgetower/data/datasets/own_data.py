"""`OwnData`: a user's own data set, from tables and a folder of pictures."""

import collections
import dataclasses
import functools
import hashlib
import itertools
import os
import typing

from keras_bridgetower.data.datasets import own_tables
from keras_bridgetower.data.datasets import statements
from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores

# A tenth of the pictures in a single table is for each of these, by a hash.
_HELD_OUT = {0: "test", 1: "validation"}
# Minimum number of people whose answers are scored by VQAv2's rule, by which
# three of them have to agree.
_PEOPLE = 10


@dataclasses.dataclass(frozen=True)
class OwnSplit(Split):
    """A split whose definition also describes the unused parts of its tables.

    Args:
        unused: function without arguments that returns this description. It
            reads the tables, so it is called only when needed.
    """

    unused: object = str

    @property
    def definition(self):
        return super().definition + self.unused()


class OwnData(DataSet):
    """A table and a folder of pictures.

    There are tables `train`, `validation` and `test`, or one table `data`.
    Each is a `.csv` file (with a header, and quotes around texts with commas)
    or a `.jsonl` file. Of `data`, a tenth of the pictures is for testing and a
    tenth for validation, chosen by a hash of their names.

    The columns determine the task: `image,text,answer` are questions,
    `image,text` captions, `image,text,label` entailment or other classes of
    pairs, `image,label` and `text,label` classes of pictures and of texts. A
    column `id` may be added. Columns with other names are not read, and the
    definition of a split lists them. A name similar to one of these is an
    error.

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
        self._files = own_tables.find_tables(self.root)
        for table in self._files.values():
            self.check_inside(table.absolute(), "Each table")
        if own_tables.WHOLE in self._files:
            words = dict.fromkeys(
                own_tables.SPLITS,
                "Of the table data, by pictures; a tenth each for validation "
                "and test.",
            )
        else:
            names = [n for n in own_tables.SPLITS if n in self._files]
            words = {name: f"The table {name}." for name in names}
        splits = {
            name: OwnSplit(
                (name,), text, unused=functools.partial(self._unused, name)
            )
            for name, text in words.items()
        }
        self.protocols = {"honest": splits, "official": splits}

    @property
    def task(self):
        return self._tables.task

    @property
    def labels(self):
        return self._tables.labels

    @functools.cached_property
    def _tables(self):
        task, tables, unread = own_tables.read_tables(self._files)
        kind = _TARGETS[task]()
        if self._labels_argument:
            labels = _parse_labels(self._labels_argument, kind.spell)
        else:
            rows = (row for rows in tables.values() for row in rows)
            labels = kind.find_labels(rows, self.min_count)
        samples = self._samples(tables, labels, kind.target)
        return _Tables(task, labels, samples, unread)

    def files(self, part):
        return ((self._file(part).name,),)

    def drafts(self, part):
        folder = os.path.join(self.root, "")
        for key, samples in self._tables.samples[part].items():
            pictures = ()
            if self.task != "text_classification":
                # If the key is an absolute path, `join` returns just the key.
                pictures = (FilePicture(os.path.join(folder, key)),)
            if part == "train":
                samples = [s for s in samples if self._has_label(s)]
            if samples:
                yield Draft(key, pictures, tuple(samples), part)

    def _file(self, part):
        return self._files.get(part) or self._files[own_tables.WHOLE]

    def _samples(self, tables, labels, target):
        """Return the samples by part and key of the record."""
        ids = {label: i for i, label in enumerate(labels)}
        parts = {
            part: collections.defaultdict(list)
            for part in self.protocols["honest"]
        }
        for table, rows in tables.items():
            # Many rows have equal pictures and targets: compute each once.
            path, keys, targets = self._files[table], {}, {}
            for number, row in enumerate(rows, 1):
                name = f"{table}-{number}"
                if row.image not in keys:
                    keys[row.image] = self._picture_key(path, number, row.image)
                key = keys[row.image] or name
                part = _split(key) if table == own_tables.WHOLE else table
                if row.target not in targets:
                    targets[row.target] = target(path, number, row, ids)
                id = name if row.id is None else str(row.id)
                sample = Sample(id, row.text or "", *targets[row.target])
                parts[part][key].append(sample)
                # Free the row, which its sample replaces.
                rows[number - 1] = None
        empty = [part for part, records in parts.items() if not records]
        if empty:
            raise ValueError(
                f"{self._file(empty[0])} has too few pictures, or texts, for a "
                "tenth each in validation and test. Give the tables train, "
                f"validation and test. Received: none for {', '.join(empty)}"
            )
        return parts

    def _picture_key(self, path, number, image):
        if image is None:
            return None
        self.check_inside(image, f"Each image of {path}", f" in row {number}")
        [folder] = self._folders
        return folder.key(image)

    def _has_label(self, sample):
        return bool(sample.labels) or not self.labels

    def _unused(self, part):
        samples = itertools.chain(*self._tables.samples[part].values())
        count = sum(not self._has_label(sample) for sample in samples)
        words = ""
        if count:
            use = "left out" if part == "train" else "kept, no answer is right"
            words = f" {count:,} questions without a class as answer: {use}."
        names = ", ".join(map(repr, self._tables.unread))
        if names:
            words += f" Columns that are not read: {names:.200}."
        return words


class _Tables(typing.NamedTuple):
    task: str
    labels: list
    # By part and key of the record: lists of samples.
    samples: dict
    # Names of columns that are not read.
    unread: list


def _parse_labels(text, spell):
    """Return the labels in a string, each of which must occur once."""
    names = [name.strip() for name in text.split(",")]
    labels = [spell(name) for name in names]
    if not all(names) or len(set(labels)) < len(labels):
        raise ValueError(
            "`labels` must be classes with commas between, each there once "
            f"(answers normalized: {labels}). Received: labels={text!r}"
        )
    return labels


def _split(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return _HELD_OUT.get(total % 10, "train")


class _Labels:
    """Targets of rows with one label each."""

    def spell(self, text):
        """Return a label as it is compared with others."""
        return str(text).strip()

    def find_labels(self, rows, min_count):
        """Return the list of labels of all rows."""
        labels = sorted({self.spell(row.target) for row in rows})
        try:
            return sorted(labels, key=int)
        except ValueError:
            return labels

    def target(self, path, number, row, ids):
        """Return the label ids of a row, and their scores if they have any."""
        label = self.spell(row.target)
        if label not in ids:
            raise ValueError(
                f"Each label of {path} must be one of {list(ids)}. Received: "
                f"{row.target!r} in row {number}"
            )
        return ((ids[label],),)


class _Judgements(_Labels):
    """Targets of pairs. Labels of entailment are in the order of its task."""

    def find_labels(self, rows, min_count):
        labels = super().find_labels(rows, min_count)
        if set(labels) <= set(statements.ENTAILMENT_LABELS):
            return list(statements.ENTAILMENT_LABELS)
        return labels


class _Answers(_Labels):
    """Targets of questions that one or several people have answered."""

    def spell(self, text):
        return normalize_answer(str(text))

    def find_labels(self, rows, min_count):
        spellings = collections.Counter(
            answer for row in rows for answer in own_tables.as_list(row.target)
        )
        counts = collections.Counter()
        # Normalizing is slow, so each spelling is normalized only once.
        for answer, count in spellings.items():
            counts[normalize_answer(answer)] += count
        labels = [label for label, n in counts.items() if n >= min_count]
        if not labels:
            raise ValueError(
                "Some answer must occur `min_count` times in the tables. "
                f"Received: min_count={min_count}"
            )
        return labels

    def target(self, path, number, row, ids):
        answers = own_tables.as_list(row.target)
        if len(answers) >= _PEOPLE:
            scores = soft_scores(answers)
        else:
            counts = collections.Counter(map(normalize_answer, answers))
            scores = {text: n / len(answers) for text, n in counts.items()}
        known = {ids[a]: s for a, s in scores.items() if a in ids}
        return tuple(known), tuple(known.values())


class _NoLabels(_Labels):
    """Targets of captions, which have no labels."""

    def spell(self, text):
        raise ValueError(
            f"`labels` must be left out for captions. Received: {text!r}"
        )

    def find_labels(self, rows, min_count):
        return []

    def target(self, path, number, row, ids):
        return ()


_TARGETS = {
    "vqa": _Answers,
    "captions": _NoLabels,
    "entailment": _Judgements,
    "image_classification": _Labels,
    "text_classification": _Labels,
}
