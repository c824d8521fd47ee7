"""Reads row groups of Parquet files with pictures and texts."""

import os
import pathlib

from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records.format import encode_row
from keras_bridgetower.object_stores import DamagedFile

# Bytes of row groups that a reader keeps, and how many at least if they fit.
_MOST, _FEWEST = 4 * 2**30, 8
# Bytes of one row group in memory: at most so many, and so many for each byte
# of the file, with so many more. Repeated values take no room in a file.
_LARGEST, _EXPANSION, _SPARE = 2**30, 100, 2**26
# Rows that are decoded at a time.
_BATCH = 64


class RowGroup:
    """The pictures and texts of a row group, in memory.

    Args:
        file: open binary file.
        name: str, the file's name, of which the keys of rows begin.
        columns: dict, the names of the columns `"image"` and `"text"`.
        group: int, number of the row group.

    Raises:
        DamagedFile: the file is not Parquet, or lacks the columns or the group.
    """

    def __init__(self, file, name, columns, group):
        arrow = load_extra("pyarrow", "data")
        parquet = load_extra("pyarrow.parquet", "data")
        compute = load_extra("pyarrow.compute", "data")
        try:
            opened = parquet.ParquetFile(file)
            image, text = column_paths(opened.schema_arrow, columns)
            table = _read_bounded(opened, group, [image, text], file)
            self._images = table[columns["image"]]
            self._texts = table[columns["text"]]
            metadata = opened.metadata
            before = [metadata.row_group(i).num_rows for i in range(group)]
        except (
            arrow.ArrowException,
            OSError,
            ValueError,
            LookupError,
        ) as error:
            raise DamagedFile(f"{error!s:.600}") from error
        if image != columns["image"]:
            self._images = compute.struct_field(self._images, "bytes")
        self._name, self._first = pathlib.PurePath(name).stem, sum(before)

    def __len__(self):
        return len(self._images)

    def key(self, row):
        """Return the key of a row: the file's name and the number in it."""
        return f"{self._name}/{self._first + row}"

    def parts(self, row):
        """Return the picture and the texts of a row; empty if it lacks them."""
        texts = self._texts[row].as_py()
        texts = texts if isinstance(texts, list) else [texts]
        picture = self._images[row].as_py() or b""
        return {"picture": picture, "text": [] if None in texts else texts}

    def encoded(self, row):
        """Return the bytes of a row, of which its offset has the checksum."""
        # A changed file may have fewer rows, or rows without a part.
        try:
            parts = self.parts(row)
        except (IndexError, UnicodeError):
            return b""
        if not all(parts.values()):
            return b""
        return encode_row(self.key(row), parts["text"], parts["picture"])


def _read_bounded(opened, group, paths, file):
    """Read columns of a row group as a table, if it is not too large."""
    arrow = load_extra("pyarrow", "data")
    size = os.fstat(file.fileno()).st_size
    most = min(_LARGEST, _EXPANSION * size + _SPARE)

    def check(size):
        if size > most:
            raise ValueError(
                f"row group {group} is too large: {size:,} bytes of pictures "
                f"and texts, where {most:,} are allowed"
            )

    told = opened.metadata.row_group(group)
    starts = tuple(f"{path}." for path in paths)
    columns = map(told.column, range(told.num_columns))
    own = (c for c in columns if f"{c.path_in_schema}.".startswith(starts))
    check(sum(column.total_uncompressed_size for column in own))
    batches, total = [], 0
    for batch in opened.iter_batches(_BATCH, [group], paths):
        total += batch.nbytes
        check(total)
        batches.append(batch)
    schema = None if batches else opened.schema_arrow
    return arrow.Table.from_batches(batches, schema)


def column_paths(schema, columns):
    """Return the paths of the columns with pictures and texts.

    Args:
        schema: `pyarrow.Schema`.
        columns: as `RowGroup`.

    Raises:
        ValueError: a column is missing, or of another type.
    """
    arrow = load_extra("pyarrow", "data")
    kinds = dict(zip(schema.names, schema.types, strict=True))
    paths = [columns["image"], columns["text"]]
    image, text = map(kinds.get, paths)
    if isinstance(image, arrow.StructType):
        paths[0] += ".bytes"
        image = {field.name: field.type for field in image}.get("bytes")
    text = getattr(text, "value_type", text)
    for name, kind, wanted, described in (
        ("image", image, "binary", "bytes, or of structs with `bytes`"),
        ("text", text, "string", "strings, or of lists of strings"),
    ):
        if str(kind) not in (wanted, f"large_{wanted}"):
            found = ", ".join(f"{name!r} ({kinds[name]})" for name in kinds)
            raise ValueError(
                f"`{name}` must be a column of {described}. "
                f"Received: {columns[name]!r}, of {found}"
            )
    return paths


def count_to_keep(wanted, largest, place):
    """Return how many row groups to keep in memory.

    Args:
        wanted: int, those that a stream reads at a time.
        largest: int, the bytes of the largest.
        place: where the files are, for the error.

    Raises:
        ValueError: so many do not fit.
    """
    most = _MOST // max(largest, 1)
    if wanted > most:
        raise ValueError(
            f"The row groups of {place} have up to {largest / 10**6:,.0f} MB, "
            f"so that {most} of them fit into {_MOST / 2**30:g} GiB, but "
            f"`order` reads {wanted}: three windows for each lane. Use a "
            "smaller `Shuffled(window=...)` or smaller row groups."
        )
    return max(wanted, min(most, _FEWEST))
