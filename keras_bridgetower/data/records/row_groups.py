"""Reads row groups of Parquet files with pictures and texts."""

import pathlib

from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records.format import encode_row
from keras_bridgetower.data.records.places import DamagedFile

# Bytes of row groups that a reader keeps, and how many at least if they fit.
_MOST, _FEWEST = 4 * 2**30, 8


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
            table = opened.read_row_group(group, [image, text])
            self._images, self._texts = (
                table[columns[name]] for name in ("image", "text")
            )
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
        parts = self.parts(row) if row < len(self) else {"picture": b""}
        if not all(parts.values()):
            return b""
        return encode_row(self.key(row), parts["text"], parts["picture"])


def column_paths(schema, columns):
    """Return the paths of the columns with pictures and texts.

    Args:
        schema: `pyarrow.Schema`.
        columns: as `RowGroup`.

    Raises:
        ValueError: a column is missing, or of another type.
    """
    is_type = load_extra("pyarrow.types", "data")
    kinds = dict(zip(schema.names, schema.types, strict=True))
    image, text = (kinds.get(columns[k]) for k in ("image", "text"))
    path = columns["image"]
    if image is not None and is_type.is_struct(image):
        names = [field.name for field in image]
        image = image.field("bytes").type if "bytes" in names else None
        path += ".bytes"
    if image is None or not (
        is_type.is_binary(image) or is_type.is_large_binary(image)
    ):
        raise ValueError(
            "`image` must be a column of bytes, or of structs with `bytes`. "
            f"Received: {columns['image']!r}, of {_described(kinds)}"
        )
    if text is not None and (
        is_type.is_list(text) or is_type.is_large_list(text)
    ):
        text = text.value_type
    if text is None or not (
        is_type.is_string(text) or is_type.is_large_string(text)
    ):
        raise ValueError(
            "`text` must be a column of strings, or of lists of strings. "
            f"Received: {columns['text']!r}, of {_described(kinds)}"
        )
    return path, columns["text"]


def _described(kinds):
    return ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items())


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
