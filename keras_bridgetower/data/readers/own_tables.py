"""The tables of own data: found, read, and refused where they are unclear."""

from keras_bridgetower.data.readers.files import check_row
from keras_bridgetower.data.readers.files import comma_rows
from keras_bridgetower.data.readers.files import json_lines

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
# A text alone may be empty.
FILLED = ("answer", "image", "label")
SPLITS = ("train", "validation", "test")
# The table that is divided.
WHOLE = "data"
READERS = {".jsonl": lambda path: json_lines(path, {}), ".csv": comma_rows}


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
        `(task, rows)`, the latter a dict from names to lists of dicts, which
        have no value None.

    Raises:
        ValueError: no rows, columns of no task or of several, an empty cell;
            names file and row.
    """
    rows = {
        name: READERS[path.suffix.lower()](path)
        for name, path in tables.items()
    }
    first = None
    for name, path in tables.items():
        if not rows[name]:
            raise ValueError(
                f"{path} must hold at least one row, below the header if it "
                "is .csv. Received: none"
            )
        for number, row in enumerate(rows[name], 1):
            columns = _columns(row)
            first = first or (columns, f"row {number} of {path}: {row!r:.200}")
            _check_columns(columns, first, path, number, row)
            _check_cells(columns, path, number, row)
    cells = {name: [_given(row) for row in of] for name, of in rows.items()}
    return TASKS[first[0]], cells


def listed(answer):
    """The answers in a cell: a list of them, or one."""
    return answer if isinstance(answer, list) else [answer]


def _given(row):
    # A line of JSON may be anything.
    cells = row.items() if isinstance(row, dict) else ()
    return {key: value for key, value in cells if value is not None}


def _columns(row):
    given = _given(row)
    return tuple(column for column in COLUMNS if column in given)


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
    check_row(path, number, row, {c: COLUMNS[c] for c in columns})
    for column in columns:
        values = listed(row[column])
        if column in FILLED and not (values and all(map(_filled, values))):
            raise ValueError(
                f"Each row of {path} must have something in {column!r}; fill "
                f"it, or take the row away. Received: {row[column]!r:.100} in "
                f"row {number}: {row!r:.200}"
            )


def _filled(value):
    return isinstance(value, VALUES) and bool(str(value).strip())
