"""`OwnData`: a user's own data set, from tables and a folder of pictures."""

import collections
import dataclasses
import functools
import hashlib
import os

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.own.classes import CLASSES
from keras_bridgetower.data.datasets.own.tables import SPLITS
from keras_bridgetower.data.datasets.own.tables import WHOLE
from keras_bridgetower.data.datasets.own.tables import find_tables
from keras_bridgetower.data.datasets.own.tables import read_tables
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample

# If one table holds all data, one tenth of the pictures goes to each of these.
HELD_OUT = {0: "test", 1: "validation"}


@dataclasses.dataclass(frozen=True)
class OwnSplit(Split):
    """A split whose definition also tells what is not used of its tables.

    Args:
        unused: function without arguments that returns this text. It reads
            the tables, so it is called only when it is needed.
    """

    unused: object = str

    @property
    def definition(self):
        return super().definition + self.unused()


class OwnData(DataSet):
    """A table and a folder of pictures.

    There are tables `train`, `validation` and `test`, or one table `data`.
    Each is a `.csv` file (with a header, and quotes around texts with commas)
    or a `.jsonl` file. Of `data`, a tenth of the pictures goes to the test and
    a tenth to the validation set, chosen by a hash of their names.

    The columns determine the task: `image,text,answer` are questions,
    `image,text` captions, `image,text,label` entailment or other classes of
    pairs, `image,label` and `text,label` classes of pictures and of texts. A
    column `id` may be added. Columns with other names are not read, and the
    definition of a split lists them. A name that is nearly one of these is an
    error.

    An answer is a string, or in JSON a list with the answers of several
    people. Its score is the share of people who gave it, so 1 for a string.
    If ten people or more answered, it is VQAv2's score. Questions without a
    class among their answers are left out of the training set. In the other
    sets they stay, and no answer to them counts as right.

    Args:
        root: path of the folder with the tables. `image` is a path below it;
            links must not leave it.
        min_count: int, how often an answer must occur to be a class.
        labels: str, the classes in their order, separated by commas. By
            default they come from all tables: answers in the order of their
            first occurrence, labels sorted, as numbers if all are integers.
            Those of entailment are contradiction, neutral and entailment.
        outside: bool, whether pictures outside of `root` may be read, by
            absolute paths, `..` or links. Set it only if you trust the
            tables, which can then name any file.
    """

    def __init__(self, root, min_count=1, labels=None, outside=False):
        super().__init__(root, outside)
        self.min_count = int(min_count)
        self._labels_argument = labels
        self._files = find_tables(self.root)
        for table in self._files.values():
            self.check_inside(table.absolute(), "Each table")
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
                unused=functools.partial(self._unused, name),
            )
            for name, of in words.items()
        }
        self.protocols = {"honest": splits, "official": splits}

    @property
    def task(self):
        return self._tables_read[0]

    @property
    def labels(self):
        return self._tables_read[1]

    @property
    def _samples(self):
        """Dict from parts to dicts from keys of records to lists of samples."""
        return self._tables_read[2]

    @functools.cached_property
    def _tables_read(self):
        """Task, labels, samples, and the names of columns that are not read."""
        task, tables, unread = read_tables(self._files)
        classes = CLASSES[task]
        if self._labels_argument:
            labels = _distinct(self._labels_argument, classes.spell)
        else:
            rows = (row for rows in tables.values() for row in rows)
            labels = classes.find_classes(rows, self.min_count)
        samples = self._samples_of(tables, labels, classes.target)
        return task, labels, samples, unread

    def files(self, part):
        return ((self._file(part).name,),)

    def drafts(self, part):
        folder = os.path.join(self.root, "") if self._has_pictures else None
        for key, samples in self._samples[part].items():
            # If the key is an absolute path, `join` returns just the key.
            pictures = (
                ()
                if folder is None
                else (FilePicture(os.path.join(folder, key)),)
            )
            if part == "train":
                samples = [s for s in samples if self._has_class(s)]
            if samples:
                yield Draft(key, pictures, tuple(samples), part)

    @property
    def _has_pictures(self):
        return self.task != "text_classification"

    def _file(self, part):
        return self._files.get(part) or self._files[WHOLE]

    def _samples_of(self, tables, labels, target):
        ids = {label: i for i, label in enumerate(labels)}
        parts = {
            part: collections.defaultdict(list)
            for part in self.protocols["honest"]
        }
        for table, rows in tables.items():
            # Many rows have equal pictures and targets; compute each once.
            path, keys, targets = self._files[table], {}, {}
            for number, row in enumerate(rows, 1):
                name = f"{table}-{number}"
                if row.image not in keys:
                    keys[row.image] = self._picture_key(path, number, row.image)
                key = keys[row.image] or name
                part = _split_of(key) if table == WHOLE else table
                if row.target not in targets:
                    targets[row.target] = target(path, number, row, ids)
                id = name if row.id is None else str(row.id)
                sample = Sample(id, row.text or "", *targets[row.target])
                parts[part][key].append(sample)
                # Free the row; its sample replaces it.
                rows[number - 1] = None
        self._check_filled(parts)
        return parts

    def _picture_key(self, path, number, image):
        if image is None:
            return None
        self.check_inside(image, f"Each image of {path}", f" in row {number}")
        [folder] = self._folders
        return folder.key(image)

    def _check_filled(self, parts):
        """Refuse a table with too few pictures to be divided."""
        empty = [part for part, records in parts.items() if not records]
        if empty:
            raise ValueError(
                f"{self._file(empty[0])} has too few pictures, or texts, for a "
                "tenth each in validation and test. Give the tables train, "
                "validation and test instead. Received: "
                f"{sum(map(len, parts.values()))} of them, none for "
                f"{' and '.join(empty)}"
            )

    def _has_class(self, sample):
        return bool(sample.labels) or not self.labels

    def _unused(self, part):
        samples = [s for of_key in self._samples[part].values() for s in of_key]
        count = sum(not self._has_class(sample) for sample in samples)
        done = "left out" if part == "train" else "kept, no answer is right"
        told = f" {count:,} questions without a class as answer: {done}."
        names = ", ".join(map(repr, self._tables_read[3]))
        columns = f" Columns that are not read: {names:.200}." if names else ""
        return (told if count else "") + columns


def _distinct(given, spell):
    """The classes in a string, separated by commas; each must be there once."""
    names = [name.strip() for name in given.split(",")]
    labels = [spell(name) for name in names]
    if not all(names) or len(set(labels)) < len(labels):
        raise ValueError(
            "`labels` must be classes with commas between, each there once "
            f"(answers normalised: {labels}). Received: labels={given!r}"
        )
    return labels


def _split_of(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return HELD_OUT.get(total % 10, "train")
