"""Finds and reads a user's own tables, and rejects ambiguous ones."""

import difflib
import typing

from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import comma_rows
from keras_bridgetower.data.datasets.tables import json_lines

# Tasks by their sets of columns.
TASKS = {
    ("answer", "image", "text"): "vqa",
    ("image", "text"): "captions",
    ("image", "label", "text"): "entailment",
    ("image", "label"): "image_classification",
    ("label", "text"): "text_classification",
}
# Types of cells; a class may be a number.
VALUES = (str, int, float)
COLUMNS = {
    "answer": (*VALUES, list),
    "image": str,
    "label": VALUES,
    "text": str,
}
# The column of the user's own ids of rows.
ID = "id"
# Names with at least this similarity to a column are mistakes: "answers",
# "anwser".
ALIKE = 0.8
# Columns whose cells must not be empty. A text may be.
FILLED = ("answer", "image", "label")
SPLITS = ("train", "validation", "test")
# Name of a table with all data, which is divided into splits.
WHOLE = "data"
READERS = {".jsonl": lambda path: json_lines(path, {}), ".csv": comma_rows}


class Row(typing.NamedTuple):
    """The cells of a row, None for missing columns.

    Args:
        image: str, the path as written in the table.
        text: str.
        target: str, the cell `answer` or `label`; a tuple of str if several
            people answered.
        id: str or number, the cell `id`.
    """

    image: str | None
    text: str | None
    target: str | tuple | None
    id: object


def find_tables(folder):
    """Find the tables in a folder.

    Args:
        folder: `pathlib.Path`.

    Returns:
        dict from names of tables, `"data"` or some of `SPLITS`, to paths.

    Raises:
        ValueError: there is no table, or it is ambiguous which ones to use.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READERS and path.stem in (*SPLITS, WHOLE)
    ]
    tables = {path.stem: path for path in found}
    if not tables:
        raise ValueError(
            f"{folder} must hold data, or train, validation and test, "
            "as .csv or .jsonl. Received: no such file"
        )
    if len(tables) < len(found) or (WHOLE in tables and len(tables) > 1):
        raise ValueError(
            f"{folder} must hold either one table data, or one each of train, "
            "validation and test. Remove the others. Received: "
            f"{[path.name for path in found]}"
        )
    return tables


def read_tables(tables):
    """Read the rows of tables of one task.

    Args:
        tables: dict, as `find_tables` returns it.

    Returns:
        `(task, rows, unread)`: `rows` is a dict from names of tables to lists
        of `Row`, `unread` the names of columns that are not used.

    Raises:
        ValueError: there are no rows, the columns are of no task or of
            several, a name is similar to that of a column, or a cell is
            empty; the error names the file and the row.
    """
    found, first, known = {}, None, {}
    for name, path in tables.items():
        rows = found[name] = []
        # Equal targets share one object, to save memory.
        shared = {}
        table = READERS[path.suffix.lower()](path)
        for number, row in enumerate(table, 1):
            cells = _filled_cells(row)
            names = tuple(cells)
            if names not in known:
                columns = tuple(c for c in COLUMNS if c in cells)
                place = f"row {number} of {path}: {row!r:.200}"
                first = first or (columns, place)
                _check_names(names, path, number, row)
                _check_columns(columns, first, path, number, row)
                known[names] = columns
            _check_cells(known[names], path, number, cells)
            target = _target(cells)
            target = shared.setdefault(target, target)
            # An empty cell of CSV is no id, but the number 0 is one.
            id = None if cells.get(ID) == "" else cells.get(ID)
            rows.append(Row(cells.get("image"), cells.get("text"), target, id))
        if not rows:
            raise ValueError(
                f"{path} must hold at least one row (below a header in .csv)"
            )
    unread = sorted(
        {name for names in known for name in names} - {*COLUMNS, ID}
    )
    return TASKS[first[0]], found, unread


def as_list(answer):
    """Return the answers of a row, of one or several people, as a sequence."""
    return answer if isinstance(answer, (list, tuple)) else (answer,)


def _filled_cells(row):
    # A line of JSON may have another value than an object.
    cells = row.items() if isinstance(row, dict) else ()
    return {key: value for key, value in cells if value is not None}


def _target(cells):
    target = cells.get("answer", cells.get("label"))
    if isinstance(target, list):
        return tuple(map(str, target))
    return None if target is None else str(target)


def _check_names(names, path, number, row):
    """Raise if a column is misspelled, and so would not be read."""
    for name in names:
        plain = name.strip().casefold()
        alike = difflib.get_close_matches(plain, COLUMNS, 1, ALIKE)
        alike = [ID] if plain == ID else alike
        if alike and name not in (*COLUMNS, ID):
            raise ValueError(
                f"{path} must spell the column {alike[0]!r} exactly: {name!r} "
                "is similar and would not be read. Rename it. Received: the "
                f"columns {list(names)} in row {number}: {row!r:.200}"
            )


def _check_columns(columns, first, path, number, row):
    allowed = [",".join(columns) for columns in TASKS]
    if columns not in TASKS:
        raise ValueError(
            f"The rows of {path} must have the columns of one task, in small "
            f"letters and with commas between: {allowed}. Received: the "
            f"columns {list(_filled_cells(row))} in row {number}: {row!r:.200}"
        )
    if columns != first[0]:
        raise ValueError(
            f"All rows must have the columns of one task: {allowed}. "
            f"Received: {','.join(columns)} in row {number} of {path}: "
            f"{row!r:.200}, but {','.join(first[0])} in {first[1]}"
        )


def _check_cells(columns, path, number, row):
    for column in columns:
        value = row[column]
        # True for nearly all cells. The checks below are slower.
        if type(value) is str and (value.strip() or column not in FILLED):
            continue
        check_row(path, number, row, {column: COLUMNS[column]})
        values = as_list(value)
        if column in FILLED and not (values and all(map(_filled, values))):
            raise ValueError(
                f"Each row of {path} must have something in {column!r}; fill "
                f"it, or delete the row. Received: {value!r:.100} in "
                f"row {number}: {row!r:.200}"
            )
    if ID in row:
        check_row(path, number, row, {ID: VALUES})


def _filled(value):
    return isinstance(value, VALUES) and bool(str(value).strip())
