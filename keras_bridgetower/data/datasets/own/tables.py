"""The tables of own data: found, read, and refused where they are unclear."""

import difflib
import typing

from keras_bridgetower.data.datasets.tables import check_row
from keras_bridgetower.data.datasets.tables import comma_rows
from keras_bridgetower.data.datasets.tables import json_lines

# What is learnt follows from the columns.
TASKS = {
    ("answer", "image", "text"): "vqa",
    ("image", "text"): "captions",
    ("image", "label", "text"): "entailment",
    ("image", "label"): "image_classification",
    ("label", "text"): "text_classification",
}
# What a cell may be; a number may be a class.
VALUES = (str, int, float)
COLUMNS = {
    "answer": (*VALUES, list),
    "image": str,
    "label": VALUES,
    "text": str,
}
# Names a row for its reader; a number may be one.
ID = "id"
# How alike two names are that are taken for one another: "answers", "anwser".
ALIKE = 0.8
# A text alone may be empty.
FILLED = ("answer", "image", "label")
SPLITS = ("train", "validation", "test")
# The table that is divided.
WHOLE = "data"
READERS = {".jsonl": lambda path: json_lines(path, {}), ".csv": comma_rows}


class Row(typing.NamedTuple):
    """The cells of a row, None for those that it has not.

    Args:
        image: str, the path as it is written.
        text: str.
        target: str, what is in `answer` or `label`; a tuple of them where
            several people answered.
        id: str or number.
    """

    image: str | None
    text: str | None
    target: str | tuple | None
    id: object


def find_tables(folder):
    """The tables of a folder.

    Args:
        folder: `pathlib.Path`.

    Returns:
        dict from `"data"`, or from names of `SPLITS`, to paths.

    Raises:
        ValueError: none, or several of which one would have to win.
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
            "validation and test. Take away what is not meant. Received: "
            f"{[path.name for path in found]}"
        )
    return tables


def read_tables(tables):
    """The rows of tables that are all of one task.

    Args:
        tables: what `find_tables` gives.

    Returns:
        `(task, rows, unread)`: rows are a dict from names to lists of `Row`,
        `unread` the names of columns that nothing reads.

    Raises:
        ValueError: no rows, columns of no task or of several, a column whose
            name is nearly that of one that is read, an empty cell; names file
            and row.
    """
    found, first, known = {}, None, {}
    for name, path in tables.items():
        rows = found[name] = []
        # What is equal is held once: a million answers are few words.
        shared = {}
        table = READERS[path.suffix.lower()](path)
        for number, row in enumerate(table, 1):
            cells = _given(row)
            names = tuple(cells)
            if names not in known:
                columns = tuple(c for c in COLUMNS if c in cells)
                shown = f"row {number} of {path}: {row!r:.200}"
                first = first or (columns, shown)
                _check_names(names, path, number, row)
                _check_columns(columns, first, path, number, row)
                known[names] = columns
            _check_cells(known[names], path, number, cells)
            target = _target(cells)
            target = shared.setdefault(target, target)
            rows.append(
                Row(cells.get("image"), cells.get("text"), target, _id(cells))
            )
        if not rows:
            raise ValueError(
                f"{path} must hold at least one row, below the header if it "
                "is .csv. Received: none"
            )
    read = {*COLUMNS, ID}
    unread = sorted({name for names in known for name in names} - read)
    return TASKS[first[0]], found, unread


def listed(answer):
    """The answers of a row: those of several people, or one."""
    return answer if isinstance(answer, (list, tuple)) else (answer,)


def _given(row):
    # A line of JSON may be anything.
    cells = row.items() if isinstance(row, dict) else ()
    return {key: value for key, value in cells if value is not None}


def _target(cells):
    given = cells.get("answer", cells.get("label"))
    if isinstance(given, list):
        return tuple(map(str, given))
    return None if given is None else str(given)


def _id(cells):
    # A cell without anything is none of CSV; a 0 is an id.
    return None if cells.get(ID) == "" else cells.get(ID)


def _check_names(names, path, number, row):
    """Refuse columns that would be left out for a slip of the pen."""
    for name in names:
        plain = name.strip().casefold()
        alike = difflib.get_close_matches(plain, COLUMNS, 1, ALIKE)
        alike = [ID] if plain == ID else alike
        if alike and name not in (*COLUMNS, ID):
            raise ValueError(
                f"{path} must call a column {alike[0]!r}, exactly so, for it "
                f"to be read, and {name!r} is nearly that. Rename it; to "
                "something else if another is meant. Received: the columns "
                f"{list(names)} in row {number}: {row!r:.200}"
            )


def _check_columns(columns, first, path, number, row):
    allowed = [",".join(columns) for columns in TASKS]
    if columns not in TASKS:
        raise ValueError(
            f"The rows of {path} must have the columns of one task, in small "
            f"letters and with commas between: {allowed}. Received: the "
            f"columns {list(_given(row))} in row {number}: {row!r:.200}"
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
        # Nearly every cell; the rest is looked at closely.
        if type(value) is str and (value.strip() or column not in FILLED):
            continue
        check_row(path, number, row, {column: COLUMNS[column]})
        values = listed(value)
        if column in FILLED and not (values and all(map(_filled, values))):
            raise ValueError(
                f"Each row of {path} must have something in {column!r}; fill "
                f"it, or take the row away. Received: {value!r:.100} in "
                f"row {number}: {row!r:.200}"
            )
    if ID in row:
        check_row(path, number, row, {ID: VALUES})


def _filled(value):
    return isinstance(value, VALUES) and bool(str(value).strip())
