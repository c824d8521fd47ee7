"""Reads original files: pictures, JSON and CSV, with errors that name them."""

import csv
import dataclasses
import io

from keras_bridgetower import files
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

    path: str

    def read(self):
        with self.open() as file:
            return bytes(files.read_most(file, LARGEST_PICTURE))

    def open(self):
        return files.open_regular(self.path)


def load_json(path):
    """Read a JSON file. Errors name it."""
    try:
        return files.read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} must be JSON ({error}). It may be cut: fetch it again."
        ) from error


def text_lines(path):
    """Yield the lines of a UTF-8 file, with few of them in memory."""
    # "utf-8-sig" since files of Excel start with a byte-order mark.
    with io.TextIOWrapper(files.open_bytes_of_text(path), "utf-8-sig") as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 ({error})") from error


def json_lines(path):
    """Yield the values of a JSON lines file."""
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            try:
                yield files.parse_json(line)
            except ValueError as error:
                raise ValueError(
                    f"{path} must hold one JSON object a line ({error}). "
                    f"Received: line {number}: {line!r:.100}"
                ) from error


def comma_rows(path):
    """Yield the rows of a CSV file with a header as dicts of str.

    A row of another length than the header is rejected: it often has a comma
    that is not in quotes, so that its cells are in wrong columns.

    Raises:
        ValueError: the header repeats a name, a row has another length, or a
            quote is not closed; the error names the file and the line.
    """
    table = csv.DictReader(text_lines(path), strict=True)
    columns = table.fieldnames or []
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"{path} must name each column once. Received: {columns}"
        )
    try:
        for row in table:
            if None in row or None in row.values():
                raise ValueError(
                    f"Each row of {path} must have the cells {columns}; put a "
                    "text with a comma in quotes. Received: line "
                    f"{table.line_num}: {[*row.values()]!r:.200}"
                )
            yield row
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a table of texts, with each quote in a text twice "
            f"({error}). Received: line {table.line_num}"
        ) from error
