"""Own data: a table of `image,text[,answer|label]` and a folder of pictures."""

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
from keras_bridgetower.files import Below

# A table that is not divided: of ten pictures one each.
HELD_OUT = {0: "test", 1: "validation"}


@dataclasses.dataclass(frozen=True)
class OwnSplit(Split):
    """A split that also says what of its tables is not used.

    Args:
        unused: function without arguments that says it, called late, as it
            reads the tables.
    """

    unused: object = str

    @property
    def definition(self):
        return super().definition + self.unused()


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

    Columns of other names are not read, and the definition of a split names
    them; a name that is nearly one of these is an error.

    Args:
        root: path of the folder with the tables; `image` is a path below it,
            also where it leads by links.
        min_count: int, how often an answer must occur to be a class.
        labels: str, the classes in their order with commas between; by
            default those of all tables, answers in the order of their first
            occurrence, labels sorted, as numbers if all are whole numbers.
        outside: bool, whether pictures elsewhere are read too, named in full,
            with `..`, or by links. A table may name any file of yours.
    """

    def __init__(self, root, min_count=1, labels=None, outside=False):
        super().__init__(root)
        self.outside = outside
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
                unused=functools.partial(self._unused, name),
            )
            for name, of in words.items()
        }
        self.protocols = {"honest": splits, "official": splits}

    @property
    def task(self):
        return self._read[0]

    @property
    def labels(self):
        return self._read[1]

    @property
    def _samples(self):
        """From parts to dicts from the keys of records to samples."""
        return self._read[2]

    @functools.cached_property
    def _read(self):
        """Task, labels, samples, and the names of columns not read."""
        task, tables, unread = read_tables(self._files)
        classes = CLASSES[task]
        if self._given:
            labels = _distinct(self._given, classes.spell)
        else:
            rows = (row for rows in tables.values() for row in rows)
            labels = classes.all_of(rows, self.min_count)
        samples = self._samples_of(tables, labels, classes.target)
        return task, labels, samples, unread

    def files(self, part):
        return ((self._file(part).name,),)

    def drafts(self, part):
        folder = os.path.join(self.root, "") if self._has_pictures else None
        for key, samples in self._samples[part].items():
            # The path in full where the key is one.
            pictures = (
                ()
                if folder is None
                else (FilePicture(os.path.join(folder, key)),)
            )
            if part == "train":
                samples = [s for s in samples if self._answered(s)]
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
            # What is equal, which is much, is worked out once.
            path, keys, targets = self._files[table], {}, {}
            for number, row in enumerate(rows, 1):
                name = f"{table}-{number}"
                if row.image not in keys:
                    keys[row.image] = self._key(path, number, row.image)
                key = keys[row.image] or name
                part = _place(key) if table == WHOLE else table
                if row.target not in targets:
                    targets[row.target] = target(path, number, row, ids)
                id = name if row.id is None else str(row.id)
                sample = Sample(id, row.text or "", *targets[row.target])
                parts[part][key].append(sample)
                # Of a table either rows or samples are held.
                rows[number - 1] = None
        self._check_filled(parts)
        return parts

    def _key(self, path, number, image):
        below = self._below
        if image is None:
            return None
        if not self.outside and below.leads_out(image):
            raise ValueError(
                f"Each image of {path} must be a path below its folder, and "
                "no link that leaves it. Copy the picture there; or, if you "
                "trust the table, read pictures anywhere by `outside=True` "
                "(`--set outside=1` on the command line). Received: "
                f"image={image!r:.200} in row {number}"
            )
        return below.key(image)

    @functools.cached_property
    def _below(self):
        return Below(self.root)

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

    def _unused(self, part):
        samples = [s for of_key in self._samples[part].values() for s in of_key]
        count = sum(not self._answered(sample) for sample in samples)
        done = "left out" if part == "train" else "kept, no answer is right"
        told = f" {count:,} questions without a class as answer: {done}."
        names = ", ".join(map(repr, self._read[3]))
        columns = f" Columns that are not read: {names:.200}." if names else ""
        return (told if count else "") + columns


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


def _place(key):
    total = int(hashlib.sha256(key.encode()).hexdigest(), 16)
    return HELD_OUT.get(total % 10, "train")
