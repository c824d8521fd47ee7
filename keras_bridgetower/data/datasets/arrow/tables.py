"""Opens Arrow tables, checks their columns, and reads rows and pictures."""

import dataclasses
import functools
import re

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.files import open_regular

_INSTALL = (
    "Arrow tables need pyarrow: `pip install pyarrow`, or install "
    "keras-bridgetower with its extra `data`."
)
_ROWS = 1000  # at a time


@functools.lru_cache(maxsize=64)
def open_table(path):
    """Open a table on disk; it is mapped into memory, and read on access.

    Args:
        path: str, path of a file in Arrow's IPC format.

    Returns:
        `pyarrow.Table`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: it is not a whole file in that format.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    open_regular(path).close()
    try:
        table = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
        # Unchecked, a wrong offset in a damaged file would crash the process.
        table.validate(full=True)
    # Damaged files cause errors of other types too.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} must be a file in Arrow's IPC file format "
            f"({error!s:.300}). {_advice(path)}"
        ) from error
    return table


def rows_of(path, columns, kinds):
    """Read the rows of a table, without the pictures.

    Args:
        path: str, path of the file.
        columns: names of the columns to read.
        kinds: dict from all columns that the table must have to descriptions
            of types, such as `"list<string>"` or `"string or integer"`.

    Yields:
        dicts from names of columns to values.

    Raises:
        ValueError: the file is damaged, lacks a column, or has a wrong type
            or a null; the error names the file, the column and the row.
    """
    table = open_table(path)
    missing = {*kinds} - {*table.column_names}
    if missing:
        raise ValueError(
            f"{path} must have the columns {list(kinds)}. Received: "
            f"{table.column_names}"
        )
    for column, wanted in kinds.items():
        found = _in_words(table.schema.field(column).type)
        if not _fits(found, wanted):
            raise ValueError(
                f"The column {column!r} of {path} must be of type {wanted}. "
                f"Received: {found}"
            )
    number = 0
    batches = table.select(list(columns)).to_batches(max_chunksize=_ROWS)
    for batch in batches:
        rows = batch.to_pylist()
        if any(_has_null(column) for column in batch.columns):
            _refuse_null(path, number, rows)
        yield from rows
        number += len(rows)


def _advice(path):
    import pyarrow

    try:
        pyarrow.ipc.open_stream(pyarrow.memory_map(path)).close()
    except (pyarrow.ArrowException, OSError, ValueError):
        return "It may be cut: fetch or write it again."
    return (
        "It is in the stream format, which the `datasets` library writes: "
        "read it with `pyarrow.ipc.open_stream` and write the table with "
        "`pyarrow.ipc.new_file`."
    )


def _in_words(kind):
    """Describe a type of Arrow, without its number of bits."""
    from pyarrow import types

    lists = types.is_list, types.is_large_list, types.is_fixed_size_list
    if any(is_list(kind) for is_list in lists):
        return f"list<{_in_words(kind.value_type)}>"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind):
        return "float"
    # For us, large_string and string_view are the same as string.
    return str(kind).removeprefix("large_").removesuffix("_view")


def _fits(found, wanted):
    inner = [words[5:-1] for words in (found, wanted) if words[:5] == "list<"]
    if len(inner) == 2:
        return _fits(*inner)
    # If the lists of a column are empty in all rows, their type is null.
    return found == "null" or found in wanted.split(" or ")


def _has_null(values):
    inner = _in_words(values.type).startswith("list<")
    return bool(values.null_count) or (inner and _has_null(values.flatten()))


def _refuse_null(path, first, rows):
    for number, row in enumerate(rows, first):
        for column, value in row.items():
            if _holds_none(value):
                raise ValueError(
                    f"The column {column!r} of {path} must hold no null. "
                    f"Received: {value!r:.100} in row {number}"
                )


def _holds_none(value):
    if isinstance(value, list):
        return any(map(_holds_none, value))
    return value is None


@dataclasses.dataclass(frozen=True, slots=True)
class ArrowPicture(Picture):
    """A picture in a cell of a table.

    Args:
        path: str, path of the table.
        column: str, name of the column.
        row: int, number of the row.
    """

    WRITTEN_AS = "ArrowPicture(path={path}, column={column}, row={row})"

    path: str
    column: str
    row: int

    def read(self):
        return open_table(self.path)[self.column][self.row].as_py() or b""


class ArrowTables(DataSet):
    """Abstract: tables with one row for each picture or pair of pictures.

    A part is the file `<part>.arrow`, or the files `<part>_<number>.arrow`.
    Each file is read separately, since types may differ: test tables have
    empty lists of another type, as they have no answers.

    Attributes:
        columns: dict from the columns to read to their types, as for
            `rows_of`.
        pictures: tuple of str, the columns with pictures.
    """

    columns = {}
    pictures = ("image",)

    def files(self, part):
        return tuple((path.name,) for path in self._tables(part)) or (
            (f"{part}.arrow", f"{part}_0.arrow"),
        )

    def drafts(self, part):
        places = self.files(part)
        for path in (self.path(*place) for place in places):
            rows = self.rows(path, self.columns)
            for number, row in enumerate(rows):
                pictures = tuple(
                    ArrowPicture(str(path), column, number)
                    for column in self.pictures
                )
                key = f"{path.stem}/{self.key_of(number, row)}"
                samples = tuple(self.samples(key, row))
                if samples:
                    yield Draft(key, pictures, samples, part)

    def rows(self, path, columns):
        """Read some columns of a table; all are checked."""
        images = dict.fromkeys(self.pictures, "binary")
        self.check_inside(path.absolute())
        return rows_of(str(path), columns, images | self.columns)

    def key_of(self, number, row):
        """Return the key of a row, unique in its table."""
        return row["image_id"]

    def samples(self, key, row):
        """Return the samples of a row, as an iterable."""
        raise NotImplementedError

    def _tables(self, part):
        name = re.compile(rf"{re.escape(part)}(?:_(\d+))?\.arrow")
        found = [
            (int(match[1] or 0), path)
            for path in self.root.iterdir()
            if (match := name.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]
