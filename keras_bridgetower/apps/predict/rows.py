"""Reads the rows to predict, one by one, from a folder or from a table."""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib

from keras_bridgetower.apps.predict.tables import TABLES
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.files import Below

PICTURES = {"image", "second_image"}
# What names a row for its reader, and no model reads.
ID = "id"
# How a folder is counted whose files nobody knows.
UNREADABLE_FOLDER = "folder that cannot be read"
# Files that were meant as pictures; what others are, their content says.
SUFFIXES = {
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
# What a run leaves beside its output is nothing that was passed over.
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a source.

    Args:
        number: int from 0.
        values: dict from column to str, and `id` as the source has it; paths
            are those of the source.
        folder: path below which they lie.
        error: str, why the row cannot be used, or None.
    """

    number: int
    values: dict
    folder: pathlib.Path
    error: str | None = None

    def path(self, column):
        return self.folder / self.values[column]


class Rows:
    """Rows that can be gone through again and again.

    Args:
        source: callable that returns an iterator of `(values, error)`.
        folder: path below which pictures lie.
        passed_over: `Counter` of what the source found and left out.
        path: path of the source, for messages.

    Attributes:
        count: int.
        sum: str, sha256 of all values.
        pictures: str, sha256 of the sizes and times of all picture files.
    """

    def __init__(self, source, folder, passed_over, path):
        self._source = source
        self._folder = folder
        self.passed_over = passed_over
        total, pictures = hashlib.sha256(), hashlib.sha256()
        self.count = 0
        for values, error in source():
            total.update(json.dumps([values, error]).encode() + b"\n")
            if not error:
                pictures.update(self._state(values).encode())
            self.count += 1
        self.sum, self.pictures = total.hexdigest(), pictures.hexdigest()
        if not self.count:
            raise ValueError(
                f"SOURCE must hold at least one row. Received: none in {path}"
            )

    def _state(self, values):
        """What tells of a row's pictures whether they were changed."""
        found = []
        for column in sorted(PICTURES & set(values)):
            try:
                about = os.stat(self._folder / values[column])
                found.append([about.st_size, about.st_mtime_ns])
            # It is told when the row is read.
            except (OSError, ValueError):
                found.append(None)
        return json.dumps(found)

    def __iter__(self):
        for number, (values, error) in enumerate(self._source()):
            yield Row(number, values, self._folder, error)


def open_rows(source, columns, optional=(), texts=(), outside=False, out=None):
    """The rows of a folder or of a table.

    Args:
        source: path of a folder, or of a `.csv` or `.jsonl` file.
        columns: tuple of str, those that each row must have.
        optional: tuple of str, those that rows may have, all or none.
        texts: list of str. Each row of the source is taken with each, as its
            `text`. An `id` is carried along where rows have one.
        outside: bool, whether a table may name pictures that do not lie below
            its folder: in full, with `..`, or by links.
        out: path of what the run writes, which is no part of the source where
            it lies in it.

    Returns:
        `Rows`.

    Raises:
        ValueError: no such source, one without rows, a folder or a `.csv`
            without the columns, or a `.csv` with a quote that is open.
    """
    source = pathlib.Path(source)
    suffix = source.suffix.lower()
    if source.is_dir():
        found, folder = functools.partial(_pictures, out), source
        columns_of_source = ("image",)
    elif source.is_file() and suffix in TABLES:
        found, folder = TABLES[suffix], source.parent
        columns_of_source = columns
    else:
        raise ValueError(
            "SOURCE must be a folder, or a file in .csv or .jsonl. "
            f"Received: {str(source)!r}"
        )
    own = [c for c in columns if not (c == "text" and texts)]
    if not set(own) <= set(columns_of_source):
        raise ValueError(
            f"The task reads the columns {', '.join(columns)}, and a folder "
            "has pictures alone. Give `--text`, or a table as SOURCE. "
            f"Received: {str(source)!r}"
        )

    below = Below(folder)
    # Whoever points at a folder has seen the links in it.
    outside = outside or source.is_dir()
    passed_over = collections.Counter()

    def rows():
        passed_over.clear()
        for values, error in found(source, own, passed_over):
            there = [c for c in optional if c in values]
            pictures = PICTURES & {*own, *there}
            error = error or _missing(values, [*own, *there])
            error = error or _blank(values, pictures)
            if not (error or outside):
                error = _leads_out(values, pictures, below)
            values = {c: values[c] for c in (ID, *own, *there) if c in values}
            if problem := _unwritable(values):
                values, error = {}, problem
            for text in texts or [None]:
                more = {} if text is None else {"text": text}
                yield {**values, **more}, error

    return Rows(rows, folder, passed_over, source)


def _missing(values, columns):
    missing = [c for c in columns if not isinstance(values.get(c), str)]
    if missing:
        return f"it must have the columns {', '.join(missing)}, strings"
    return None


def _blank(values, columns):
    blank = [c for c in sorted(columns) if not values[c].strip()]
    if blank:
        return (
            f"its {' and '.join(blank)} must not be empty. Write the path of "
            "a picture, or take the row away"
        )
    return None


def _unwritable(values):
    """Why no line of JSON can hold some values, or None."""
    try:
        # Deeper than any line holds them.
        json.dumps([[values]], allow_nan=False)
    except (ValueError, RecursionError) as error:
        return f"it must be JSON, which has no NaN and no Infinity: {error}"
    return None


def _leads_out(values, columns, below):
    away = [c for c in sorted(columns) if below.leads_out(values[c])]
    if away:
        return (
            f"its {' and '.join(away)} must lie below the table's folder, and "
            "be no link that leaves it. Pass `--outside` to read it all the "
            f"same. Received: {values[away[0]]!r:.200}"
        )
    return None


def picture_files(folder, passed_over, out=None):
    """The pictures of a folder and those below it, in a fixed order.

    Args:
        folder: path.
        passed_over: `Counter` of what was found and left out.
        out: path of a file or folder that is no part of it, or None.

    Yields:
        str: paths relative to the folder, with `/`. Files that are named as
        pictures come too if they are none.
    """

    def unreadable(error):
        passed_over[UNREADABLE_FOLDER] += 1

    real = None if out is None else os.path.realpath(out)
    names_of_out = {os.path.basename(path) for path in (out, real) if path}

    def others(parent, names):
        """The names but for that of `out`, sorted."""
        return sorted(
            name
            for name in names
            if name not in names_of_out
            or os.path.realpath(os.path.join(parent, name)) != real
        )

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = others(parent, folders)
        links = [f for f in folders if os.path.islink(f"{parent}/{f}")]
        passed_over["linked folder"] += len(links)
        for name in others(parent, files):
            path = pathlib.Path(parent, name)
            suffix = path.suffix.lower()
            if suffix in SUFFIXES or not FilePicture(str(path)).problem():
                yield path.relative_to(folder).as_posix()
            elif suffix != LOCK:
                passed_over[suffix or "file without suffix"] += 1


def _pictures(out, folder, columns, passed_over):
    for path in picture_files(folder, passed_over, out):
        yield {"image": path}, None
