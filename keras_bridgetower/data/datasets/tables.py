"""Reads original files: pictures, JSON and CSV, with errors that name rows."""

import contextlib
import csv
import dataclasses
import io
import itertools

from keras_bridgetower.files import open_bytes_of_text
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_most
from keras_bridgetower.preprocessing.images import check_head

# Maximum size in bytes. The largest picture that Pillow decodes is smaller,
# even without compression.
LARGEST_PICTURE = 1 << 30


class Picture:
    """Abstract: a stored picture whose `read` returns the bytes of its file."""

    def open(self):
        """Open the picture as a binary file object."""
        return io.BytesIO(self.read())

    def problem(self):
        """Return the error of opening the picture's header, or `""`."""
        try:
            # The suffix does not matter: NLVR2 has JPEG files named .png.
            with self.open() as file:
                check_head(file, "picture")
            return ""
        # On damaged files Pillow raises errors of many types.
        except Exception as error:
            return f"{type(error).__name__}: {error}"


@dataclasses.dataclass(frozen=True, slots=True)
class FilePicture(Picture):
    """A picture in a file of its own.

    Args:
        path: str, path of the file.
    """

    WRITTEN_AS = "FilePicture(path={path})"

    path: str

    def read(self):
        with self.open() as file:
            return bytes(read_most(file, LARGEST_PICTURE))

    def open(self):
        return open_regular(self.path)


def load_json(path):
    """Read a JSON file.

    Raises:
        ValueError: the content is not UTF-8 or not what `parse_json` accepts;
            the error names the file and the place in it.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{path} must be JSON ({error}). It may be cut: fetch it again."
        ) from error


def read_text(path):
    """Read a UTF-8 file. Errors name the file."""
    with _in_utf8(path) as file:
        return file.read()


def text_lines(path):
    """Yield the lines of a UTF-8 file, with few of them in memory."""
    with _in_utf8(path) as file:
        yield from file


@contextlib.contextmanager
def _in_utf8(path):
    # "utf-8-sig" since files of Excel start with a byte-order mark.
    file = io.TextIOWrapper(open_bytes_of_text(path), encoding="utf-8-sig")
    try:
        with file:
            yield file
    except UnicodeDecodeError as error:
        # The error counts from the start of a block; find the line instead.
        line, byte = _first_bad(path)
        raise ValueError(
            f"{path} must be UTF-8. Received: byte 0x{byte:02x} in line "
            f"{line}. Convert the file."
        ) from error


def _first_bad(path):
    """Return the number of the first line that is not UTF-8, and its byte."""
    with open_bytes_of_text(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]


def json_rows(path, keys, under=None):
    """Read a JSON file with a list of objects, called rows.

    Args:
        path: path of the file.
        keys: dict from keys that each row must have to the types of values.
        under: str, the key of the list in the file; None if the file is the
            list itself.

    Returns:
        list of dicts.

    Raises:
        ValueError: the content has another form; the error names the file,
            the row and the key.
    """
    rows = load_json(path)
    if under and isinstance(rows, dict):
        rows = rows.get(under)
    if not isinstance(rows, list):
        place = f"under the key {under!r}" if under else "at its top"
        raise ValueError(
            f"{path} must hold a list {place}. Received: {type(rows).__name__}"
        )
    check_rows(path, rows, keys)
    return rows


def json_lines(path, keys):
    """Yield the objects of a JSON lines file, checked as in `json_rows`."""
    for number, line in enumerate(text_lines(path), 1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(
                f"{path} must hold one JSON object a line ({error}). "
                f"Received: line {number}: {line!r:.100}"
            ) from error
        check_row(path, number, row, keys)
        yield row


def table_rows(path, keys=(), columns=None, **dialect):
    """Read a table of texts. Rows may be longer or shorter than the header.

    Args:
        path: path of the file.
        keys: names of columns that each row must have.
        columns: names of the columns, if the first row is not a header.
        **dialect: options of `csv.reader`.

    Returns:
        list of dicts from columns to str, or to None if the row is too short.

    Raises:
        ValueError: a row lacks a column; the error names file, row and column.
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
    """Yield the rows of a CSV file with a header as dicts of str.

    A row of another length than the header is rejected: it often has a comma
    that is not in quotes, so that its cells are in wrong columns.

    Raises:
        ValueError: the header repeats a name, a row has another length, or a
            quote is not closed; the error names the file and the row.
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
                f"Each row of {path} must have a cell for each column, "
                f"{columns}; put a text with a comma in quotes. Received: "
                f"{len(cells)} in row {number} (line {line}): {cells!r:.200}"
            )
        yield dict(zip(columns, cells, strict=True))


def _cells(path, **dialect):
    """Yield the number of each row's first line, and its cells."""
    # After a stray quote the rest of the file is one cell. It is read, so that
    # the error can name the row.
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


# The tables of GLUE and CC3M do not use quotes.
TAB_SEPARATED = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def check_rows(path, rows, keys):
    """Check rows that are numbered from 0, as in `check_row`."""
    for number, row in enumerate(rows):
        check_row(path, number, row, keys)


def check_row(path, number, row, keys):
    """Raise if a row lacks a key or has a value of a wrong type."""
    cells = row if isinstance(row, dict) else {}
    for key, kind in keys.items():
        if not isinstance(cells.get(key), kind):
            found = repr(cells[key])[:100] if key in cells else "no such key"
            names = getattr(kind, "__name__", None) or " or ".join(
                k.__name__ for k in kind
            )
            raise ValueError(
                f"Each row of {path} must have the key {key!r} with a value "
                f"of type {names}. Received: {found} in row {number}: "
                f"{row!r:.100}"
            )


def label_id(path, row, label, labels, key="label"):
    """Return the position of a label in `labels`, or raise an error."""
    if label not in labels:
        raise ValueError(
            f"Each {key} of {path} must be one of {list(labels)}. Received: "
            f"{label!r} in row {row}"
        )
    return labels.index(label)
