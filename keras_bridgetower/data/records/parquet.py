"""Indexes Parquet files with pictures and texts in place."""

import zlib

from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.in_place import index_files
from keras_bridgetower.data.records.row_groups import RowGroup
from keras_bridgetower.files import sha256


def index_parquet(
    folder,
    split,
    definition,
    image="image",
    text="text",
    pattern="*.parquet",
    workers=4,
    max_bad_share=0.0,
):
    """Index Parquet files so that `open_records` reads them, without a copy.

    A row has a picture and its texts. All of the files are read once. Offsets
    and an `index.json` are written into the same folder. The same call
    continues after a kill, and reads only files that are new or changed since.

    A stream reads whole row groups and takes each as a shard, so `window` of
    `Shuffled` counts row groups. Those of three windows stay in memory, 4 GiB
    at most.

    Args:
        folder: path of the folder with the files, whose names end in
            `.parquet`, or its URL in an object store, from which each file is
            downloaded and then deleted here.
        split: str, name of the split.
        definition: str, a description of the split.
        image: str, the column of picture files: bytes, or structs with `bytes`
            as in data sets of Hugging Face.
        text: str, the column of texts: strings, or lists of strings.
        pattern: str, the names of the files of the split.
        workers: int, files that are read at a time.
        max_bad_share: float from 0 to 1, the share of the rows that may lack a
            picture or a text. The index lists them. Files of img2dataset have
            a row without a picture for each failed download.

    Returns:
        dict, the entry of the split in `index.json`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: no file has such a name, the folder has a data set of
            another task, a file is no Parquet file or lacks a column, or too
            many rows are incomplete.

    Example:

    ```python
    index_parquet("cc3m", "train", "Pairs of CC3M.", image="jpg", text="txt")
    stream = Stream(open_records("cc3m", "train"), 64, transform)
    ```

    Source: img2dataset and Hugging Face's `datasets`, for the columns.
    """
    load_extra("pyarrow.parquet", "data")
    columns = {"image": image, "text": text}
    return index_files(
        *(folder, split, definition, pattern, workers, max_bad_share),
        index_file=lambda path: _index_parquet(path, columns),
        kind={"columns": columns},
    )


def _index_parquet(path, columns):
    """Write the offsets of a file, and return its entry in the index."""
    parquet = load_extra("pyarrow.parquet", "data")
    rows, groups, left_out = [], [], []
    try:
        if path.suffix != ".parquet":
            raise ValueError("its name must end in '.parquet'")
        digest = sha256(path)
        with open(path, "rb") as file:
            for number in range(parquet.read_metadata(path).num_row_groups):
                group = RowGroup(file, path.name, columns, number)
                found = _read_rows(group, left_out)
                sums = [sum(row[i] for row in found) for i in (2, 1)]
                groups.append([len(found), *sums])
                rows += found
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} must be a whole Parquet file with pictures and texts. "
            f"Received: {error!s:.600}"
        ) from error
    return write.with_offsets(
        *(path, rows, digest),
        sources={form.OF_PARQUET: sum(samples for _, samples, _ in groups)},
        plan="",
        left_out=left_out,
        columns=columns,
        groups=groups,
    )


def _read_rows(group, left_out):
    """Return the offsets of the rows of a group, and list incomplete rows."""
    rows = []
    for row in range(len(group)):
        parts = group.parts(row)
        if missing := [name for name, value in parts.items() if not value]:
            reason = f"it has no {' and no '.join(missing)}"
            left_out.append([group.key(row), reason])
            continue
        data, samples = group.encoded(row), len(parts["text"])
        rows.append((row, len(data), samples, zlib.crc32(data)))
    return rows
