"""Own data: a table of `image,text[,answer|label]` and a folder of pictures."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.base import picture_in
from keras_bridgetower.data.readers.own_classes import CLASSES
from keras_bridgetower.data.readers.own_tables import SPLITS
from keras_bridgetower.data.readers.own_tables import WHOLE
from keras_bridgetower.data.readers.own_tables import find_tables
from keras_bridgetower.data.readers.own_tables import read_tables
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample

# A table that is not divided: of ten pictures one each.
HELD_OUT = {0: "test", 1: "validation"}


@dataclasses.dataclass(frozen=True)
class OwnSplit(Split):
    """A split that also says which of its questions have no class.

    Args:
        unanswered: function without arguments that says it, called late, as
            it reads the tables.
    """

    unanswered: object = str

    @property
    def definition(self):
        return super().definition + self.unanswered()


class OwnData(DataSet):
    """A table and a folder of pictures.

    `train`, `validation` and `test`, each `.csv` (with a header, and quotes
    round a text with a comma) or `.jsonl`; or one table `data`, of which a
    tenth of the pictures goes to test and a tenth to validation, by a sum over
    their names. The columns, of which `id` may be one more, say the task:
    `image,text,answer` questions, `image,text` captions, `image,text,label`
    entailment or any other classes of pairs, `image,label` or `text,label`
    classes of one of them.

    An answer is a string, or in JSON a list of what several people said. Its
    score is the share of the people who gave it, so 1 for a string; from ten
    people on that of VQAv2. Questions none of whose answers is a class are
    left out of train; elsewhere they stay, and no answer to them is right.

    Args:
        root: path of the folder with the tables; `image` is a path below it.
        min_count: int, how often an answer must occur to be a class.
        labels: str, the classes in their order with commas between; by
            default those of all tables, answers in the order of their first
            occurrence, labels sorted, as numbers if all are whole numbers.
    """

    def __init__(self, root, min_count=1, labels=None):
        super().__init__(root)
        self.min_count = int(min_count)
        self._given = labels
        self._files = find_tables(self.root)
        words = {n: f"The table {n}." for n in SPLITS if n in self._files}
        if WHOLE in self._files:
            words = {
                name: "Of the table data, by pictures; a tenth each for "
                "validation and test."
                for name in SPLITS
            }
        splits = {
            name: OwnSplit(
                (name,),
                of,
                unanswered=functools.partial(self._unanswered, name),
            )
            for name, of in words.items()
        }
        self.protocols = {"honest": splits, "official": splits}

    @functools.cached_property
    def _tables(self):
        return read_tables(self._files)

    @property
    def task(self):
        return self._tables[0]

    @functools.cached_property
    def labels(self):
        classes = CLASSES[self.task]
        if self._given:
            return _distinct(self._given, classes.spell)
        rows = [row for rows in self._tables[1].values() for row in rows]
        return classes.all_of(rows, self.min_count)

    def files(self, part):
        return ((self._file(part).name,),)

    def drafts(self, part):
        first, *_ = self._tables[1].values()
        count = int("image" in first[0])
        for key, samples in self._samples[part].items():
            pictures = (picture_in(self.root, key),) * count
            if part == "train":
                samples = [s for s in samples if self._answered(s)]
            if samples:
                yield Draft(key, pictures, tuple(samples), part)

    def _file(self, part):
        return self._files.get(part) or self._files[WHOLE]

    @functools.cached_property
    def _samples(self):
        """From parts to dicts from the keys of records to samples."""
        ids = {label: i for i, label in enumerate(self.labels)}
        target = CLASSES[self.task].target
        parts = {
            part: collections.defaultdict(list)
            for part in self.protocols["honest"]
        }
        for table, rows in self._tables[1].items():
            for number, row in enumerate(rows, 1):
                name = f"{table}-{number}"
                key = _key(self.root, row["image"]) if "image" in row else name
                part = _place(key) if table == WHOLE else table
                labels = target(self._files[table], number, row, ids)
                sample = Sample(
                    str(row.get("id") or name), row.get("text") or "", *labels
                )
                parts[part][key].append(sample)
        self._check_filled(parts)
        return parts

    def _check_filled(self, parts):
        """Refuse a table that is too short to be divided."""
        empty = [part for part, records in parts.items() if not records]
        if empty:
            raise ValueError(
                f"{self._file(empty[0])} has too few pictures, or texts, for a "
                "tenth each in validation and test. Give the tables train, "
                "validation and test instead. Received: "
                f"{sum(map(len, parts.values()))} of them, none for "
                f"{' and '.join(empty)}"
            )

    def _answered(self, sample):
        return bool(sample.labels) or not self.labels

    def _unanswered(self, part):
        samples = [s for of_key in self._samples[part].values() for s in of_key]
        count = sum(not self._answered(sample) for sample in samples)
        done = "left out" if part == "train" else "kept, no answer is right"
        told = f" {count:,} questions without a class as answer: {done}."
        return told if count else ""


def _distinct(given, spell):
    """The classes in a string with commas between."""
    names = [name.strip() for name in given.split(",")]
    labels = [spell(name) for name in names]
    if not all(names) or len(set(labels)) < len(labels):
        raise ValueError(
            "`labels` must be classes with commas between, each there once "
            f"(answers normalised: {labels}). Received: labels={given!r}"
        )
    return labels


def _key(root, image):
    """The path of a picture, the same however it is written."""
    root = os.path.abspath(root)
    path = os.path.normpath(os.path.join(root, image))
    # What is named in full and lies elsewhere has no shorter name.
    if not (os.path.isabs(image) and not path.startswith(root + os.sep)):
        path = os.path.relpath(path, root)
    return pathlib.Path(path).as_posix()


def _place(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return HELD_OUT.get(total % 10, "train")
