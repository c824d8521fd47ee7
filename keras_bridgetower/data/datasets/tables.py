"""Pictures and tables of texts as they lie on the disk."""

import contextlib
import csv
import dataclasses
import io
import itertools
import json

from keras_bridgetower.files import open_regular
from keras_bridgetower.preprocessing.images import check_head


class Picture:
    """Abstract: where a picture is, until its bytes are asked for."""

    def read(self):
        """The bytes of the picture's file."""
        raise NotImplementedError

    def open(self):
        """The picture as a binary file."""
        return io.BytesIO(self.read())

    def problem(self):
        """Why the picture cannot be opened, or `""`; pixels are not read."""
        try:
            # By content: NLVR2 names JPEG files .png.
            with self.open() as file:
                check_head(file, "picture")
            return ""
        # A damaged file makes Pillow raise nearly anything.
        except Exception as error:
            return f"{type(error).__name__}: {error}"


@dataclasses.dataclass(frozen=True, slots=True)
class FilePicture(Picture):
    """A picture file.

    Args:
        path: str.
    """

    WRITTEN_AS = "FilePicture(path={path})"

    path: str

    def read(self):
        with self.open() as file:
            return file.read()

    def open(self):
        return open_regular(self.path)


def load_json(path):
    """What a JSON file holds.

    Args:
        path: path of the file.

    Returns:
        What it holds.

    Raises:
        ValueError: not UTF-8, or not JSON; names file and place.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} must be JSON ({error}). It may be cut: fetch it again."
        ) from error


def read_text(path):
    """The text of a UTF-8 file, or an error that names it."""
    with _in_utf8(path) as file:
        return file.read()


def text_lines(path):
    """Iterate over the lines of a UTF-8 file, of which few are held."""
    with _in_utf8(path) as file:
        yield from file


@contextlib.contextmanager
def _in_utf8(path):
    # Excel and Windows put a byte-order mark first, which is no text.
    file = io.TextIOWrapper(open_regular(path), encoding="utf-8-sig")
    try:
        with file:
            yield file
    except UnicodeDecodeError as error:
        # It knows of the few bytes alone that were decoded at once.
        line, byte = _first_bad(path)
        raise ValueError(
            f"{path} must be UTF-8. Received: byte 0x{byte:02x} in line "
            f"{line}. Convert the file."
        ) from error


def _first_bad(path):
    """The line of a file that is not UTF-8, and the byte that is wrong."""
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    raise ValueError(f"{path} has changed while it was read. Read it again.")


def json_rows(path, keys, under=None):
    """The rows of a JSON file that holds a list of objects.

    Args:
        path: path of the file.
        keys: dict from the keys that each row must have to their types.
        under: str, the key of the list in the file, or None if the file is
            the list.

    Returns:
        list of dicts.

    Raises:
        ValueError: another schema; names file, key and row.
    """
    held = load_json(path)
    rows = held.get(under) if under and isinstance(held, dict) else held
    if not isinstance(rows, list):
        place = f"under the key {under!r}" if under else "at its top"
        raise ValueError(
            f"{path} must hold a list {place}. Received: {type(rows).__name__}"
        )
    for number, row in enumerate(rows):
        check_row(path, number, row, keys)
    return rows


def json_lines(path, keys):
    """Iterate over a file of one JSON object a line, as `json_rows`."""
    for number, line in enumerate(text_lines(path), 1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} must hold one JSON object a line ({error}). "
                f"Received: line {number}: {line!r:.100}"
            ) from error
        check_row(path, number, row, keys)
        yield row


def table_rows(path, keys=(), columns=None, **dialect):
    """The rows of a table of texts, as wide as they happen to be.

    Args:
        path: path of the file.
        keys: names of the columns that each row must reach.
        columns: names of the columns where the first row does not say them.
        **dialect: as `csv.reader`.

    Returns:
        list of dicts of str, None where a row ends before the column.

    Raises:
        ValueError: another schema; names file, key and row.
    """
    table = _cells(path, **dialect)
    _, columns = next(table, (1, [])) if columns is None else (1, columns)
    keys = dict.fromkeys(keys, str)
    rows = []
    for number, (_, cells) in enumerate(table, 1):
        within = cells[: len(columns)]
        row = dict(itertools.zip_longest(columns, within))
        check_row(path, number, row, keys)
        rows.append(row)
    return rows


def comma_rows(path):
    """Iterate over the rows of a CSV file with a header, all as wide as it.

    A comma that is not in quotes would else move what follows it into the
    next column.

    Args:
        path: path of the file.

    Yields:
        dicts of str.

    Raises:
        ValueError: a name twice in the header, a row of another width, a
            quote that is not closed; names file and row.
    """
    table = _cells(path, strict=True)
    _, columns = next(table, (1, []))
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"The header of {path} must name each column once. Received: "
            f"{columns}"
        )
    for number, (line, cells) in enumerate(table, 1):
        if len(cells) != len(columns):
            raise ValueError(
                f"Each row of {path} must have a cell for each column of its "
                f"header, {columns}; a text with a comma stands in quotes. "
                f"Received: {len(cells)} cells in row {number} (line {line}): "
                f"{cells!r:.200}"
            )
        yield dict(zip(columns, cells, strict=True))


def _cells(path, **dialect):
    """Iterate over the line in which a row begins, and its cells."""
    # A stray quote makes one field of the rest of a file; the rows tell it.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text_lines(path), **dialect)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a table of texts ({error}). A text that begins "
            "with a quote ends with one, and has each quote inside it twice. "
            f"Received: the row that begins in line {line}"
        ) from error


# GLUE's and CC3M's tables quote nothing.
TAB_SEPARATED = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def check_row(path, number, row, keys):
    """Refuse a row that lacks a key, or holds another type there."""
    held = row if isinstance(row, dict) else {}
    for key, kind in keys.items():
        if not isinstance(held.get(key), kind):
            shown = repr(held[key])[:100] if key in held else "no such key"
            names = getattr(kind, "__name__", None) or " or ".join(
                k.__name__ for k in kind
            )
            raise ValueError(
                f"Each row of {path} must have the key {key!r} with a value "
                f"of type {names}. Received: {shown} in row {number}: "
                f"{row!r:.100}"
            )
