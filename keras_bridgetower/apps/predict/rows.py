"""Reads rows from a folder of pictures or a table."""

import collections
import csv
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib

from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.files import Below
from keras_bridgetower.files import parse_json

PICTURES = {"image", "second_image"}
# A column that is copied to the results; no model reads it.
ID = "id"
# The name under which unreadable folders are counted.
UNREADABLE_FOLDER = "folder that cannot be read"
# Suffixes of pictures. Of other files the content decides.
SUFFIXES = {
    *(".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a source.

    Args:
        number: int from 0.
        values: dict from column to str, and `id` as in the source. Paths are
            those of the source.
        folder: path, to which the paths are relative.
        error: str, the reason why the row cannot be used, or None.
    """

    number: int
    values: dict
    folder: pathlib.Path
    error: str | None = None


class Rows:
    """Rows of a source, which can be read several times.

    Args:
        source: callable that returns an iterator of `(values, error)`.
        folder: path, to which paths of pictures are relative.
        passed_over: `Counter` of files that the source skipped.
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
        """Return the sizes and times of a row's pictures, to detect changes."""
        found = []
        for column in sorted(PICTURES & set(values)):
            try:
                about = os.stat(self._folder / values[column])
                found.append([about.st_size, about.st_mtime_ns])
            # Reading the row reports it.
            except (OSError, ValueError):
                found.append(None)
        return json.dumps(found)

    def __iter__(self):
        for number, (values, error) in enumerate(self._source()):
            yield Row(number, values, self._folder, error)


def open_rows(source, columns, optional=(), texts=(), outside=False):
    """Open the rows of a folder or of a table.

    Args:
        source: path of a folder, or of a `.csv` or `.jsonl` file.
        columns: tuple of str that each row must have.
        optional: tuple of str that rows may have, all or none of them.
        texts: list of str. Each row of the source is used with each, as its
            `text`. An `id` is kept if rows have one.
        outside: bool, True if a table may name pictures outside its folder:
            by absolute paths, with `..`, or by links.

    Returns:
        `Rows`.

    Raises:
        ValueError: no such source, one without rows, a folder or a `.csv`
            without the columns, or a `.csv` with an unclosed quote.
    """
    source = pathlib.Path(source)
    is_folder, suffix = source.is_dir(), source.suffix.lower()
    if not is_folder and not (source.is_file() and suffix in TABLES):
        raise ValueError(
            "SOURCE must be a folder, or a file in .csv or .jsonl. "
            f"Received: {str(source)!r}"
        )
    read = _pictures if is_folder else TABLES[suffix]
    folder = source if is_folder else source.parent
    own = [c for c in columns if not (c == "text" and texts)]
    if is_folder and not set(own) <= {"image"}:
        raise ValueError(
            f"The task reads the columns {', '.join(columns)}, and a folder "
            "has pictures alone. Give `--text`, or a table as SOURCE. "
            f"Received: {str(source)!r}"
        )

    below = Below(folder)
    # Links in a folder that the user named are trusted.
    outside = outside or is_folder
    passed_over = collections.Counter()

    def rows():
        passed_over.clear()
        for values, error in read(source, own, passed_over):
            present = [*own, *(c for c in optional if c in values)]
            error = error or _problem(values, present, below, outside)
            values = {c: values[c] for c in (ID, *present) if c in values}
            for text in texts or [None]:
                more = {} if text is None else {"text": text}
                yield {**values, **more}, error

    return Rows(rows, folder, passed_over, source)


def _problem(values, columns, below, outside):
    """Return the reason why a row cannot be used, or None."""
    missing = [c for c in columns if not isinstance(values.get(c), str)]
    if missing:
        return f"it must have the columns {', '.join(missing)}, strings"
    pictures = sorted(PICTURES & set(columns))
    away = [c for c in pictures if not outside and below.leads_out(values[c])]
    if away:
        return (
            f"its {' and '.join(away)} must be below the table's folder, and "
            "not a link that leaves it. Pass `--outside` to read it anyway. "
            f"Received: {values[away[0]]!r:.200}"
        )
    return None


def picture_files(folder, passed_over):
    """Find the pictures below a folder, in a fixed order.

    Args:
        folder: path.
        passed_over: `Counter` of skipped files.

    Yields:
        str: paths relative to the folder, with `/`. Files with the suffix of a
        picture are included even if their content is not a picture.
    """

    def unreadable(error):
        passed_over[UNREADABLE_FOLDER] += 1

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        links = [f for f in folders if os.path.islink(f"{parent}/{f}")]
        passed_over["linked folder"] += len(links)
        for name in sorted(files):
            path = pathlib.Path(parent, name)
            suffix = path.suffix.lower()
            if suffix in SUFFIXES or not FilePicture(str(path)).problem():
                yield path.relative_to(folder).as_posix()
            else:
                passed_over[suffix or "file without suffix"] += 1


def _pictures(folder, columns, passed_over):
    for path in picture_files(folder, passed_over):
        yield {"image": path}, None


def _json_lines(path, columns, passed_over):
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield _json_row(line)


def _json_row(line):
    try:
        values = parse_json(line, nan=False)
    except ValueError as error:
        return {}, f"it must be JSON in UTF-8: {error}"
    if not isinstance(values, dict):
        return {}, f"it must be a JSON object. Received: {line[:80]!r}"
    return values, None


def _csv(path, columns, passed_over):
    # A long text is an error of its row, not of the whole table.
    csv.field_size_limit(2**31 - 1)
    # Bytes that are not UTF-8 become lone surrogates, which are rejected.
    with open(
        path, encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as file:
        rows = csv.DictReader(file, strict=True)
        begin = 1
        try:
            _check_header(path, rows.fieldnames or [], columns)
            begin = rows.line_num + 1
            for values in rows:
                yield values, _not_utf8(values) or _too_long(values)
                begin = rows.line_num + 1
        # Where the next row starts is unknown.
        except csv.Error as error:
            raise ValueError(
                f"{path} must be a table with commas, in which each quote "
                "that opens a cell also ends it. Received: a row from line "
                f"{begin} that fails with: {error}"
            ) from error


def _check_header(path, found, columns):
    if not set(columns) <= set(found) or len(set(found)) < len(found):
        raise ValueError(
            f"{path} must begin with a header that names the columns "
            f"{', '.join(columns)}, each once, with commas between. "
            f"Received: {found}"
        )


def _too_long(values):
    if None not in values:
        return None
    return (
        "it must have as many cells as the header. Received: "
        f"{len(values[None])} more. Put a text with commas between quotes"
    )


def _not_utf8(values):
    texts = itertools.chain(*values.items())
    try:
        "".join(text for text in texts if isinstance(text, str)).encode()
    except UnicodeEncodeError:
        return "it must be UTF-8"
    return None


TABLES = {".csv": _csv, ".jsonl": _json_lines}
