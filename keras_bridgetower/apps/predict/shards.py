"""The folder of a run on many machines: shards of rows, results and errors."""

import dataclasses
import io
import itertools
import json
import os
import pathlib
import uuid

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.rows import Row
from keras_bridgetower.checks import load_extra
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import parse_json
from keras_bridgetower.preprocessing.images import open_file
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.presets.verbs import named

HEADER = "predictions.json"
ROWS, RESULTS, ERRORS = "rows", "predictions", "errors"


@dataclasses.dataclass(frozen=True, order=True)
class Shard:
    """Consecutive rows whose results are one file.

    Args:
        out: str, folder of the run.
        pictures: str, address of the folder of the pictures.
        number: int from 0.
        count: int, number of shards.
    """

    out: str
    pictures: str
    number: int
    count: int

    @property
    def name(self):
        return f"{self.number:05}-of-{self.count:05}"

    def path(self, kind):
        """Return the path of its rows, results or errors."""
        suffix = "parquet" if kind == RESULTS else "jsonl"
        return join(self.out, kind, f"{self.name}.{suffix}")

    def write_rows(self, rows):
        """Write the rows for the worker that takes the shard."""
        lines = [[row.number, row.values, row.error] for row in rows]
        write(self.path(ROWS), _lines(lines))

    def rows(self):
        """Read the rows, a list of `Row`."""
        lines = read(self.path(ROWS)).splitlines()
        return [
            Row(number, values, self.pictures, error)
            for number, values, error in map(parse_json, lines)
        ]

    def write_results(self, results, verb):
        """Write errors, then results, whose file marks the shard as done.

        Args:
            results: list of dict, see `run_rows`.
            verb: `Verb`.
        """
        good = [result for result in results if "error" not in result]
        bad = [result for result in results if "error" in result]
        write(self.path(ERRORS), _lines(bad))
        write(self.path(RESULTS), to_parquet(good, verb))


def divide(rows, shard_rows, out, pictures):
    """Divide rows into shards, without writing them.

    Args:
        rows: `Rows`.
        shard_rows: int, rows per shard; the last one may have fewer.
        out: str, folder of the run.
        pictures: str, address of the folder of the pictures.

    Yields:
        `(Shard, iterator of its rows)`. Use the rows before the next shard.
    """
    count = -(-rows.count // shard_rows)
    waiting = iter(rows)
    for number in range(count):
        some = itertools.islice(waiting, shard_rows)
        yield Shard(out, pictures, number, count), some
        # Skip rows that the caller did not use.
        for _ in some:
            pass


def begin(out, header):
    """Create the folder of a run, or check one that was begun.

    Args:
        out: str, address of the folder.
        header: dict of plain values on which the results depend.

    Raises:
        ValueError: it was begun with another header, or is another folder.
    """
    path = join(out, HEADER)
    if _files().exists(path):
        output.check_header(read(path), header, out)
        return
    if names(out):
        raise ValueError(
            "OUT must be a new or empty folder, or one that this command has "
            f"begun, with a {HEADER}. Received: {out!r}, which holds other "
            "files"
        )
    write(path, json.dumps({"predictions": header}).encode())


def finished(out):
    """Return the set of names of the shards whose results are written."""
    found = names(out, RESULTS)
    return {n.removesuffix(".parquet") for n in found if n[0] != "_"}


def count_errors(out):
    """Count the rows with errors in all shards."""
    paths = [join(out, ERRORS, n) for n in names(out, ERRORS) if n[0] != "_"]
    return sum(read(path).count(b"\n") for path in paths)


def clear(out):
    """Remove the rows for the workers, and unfinished files."""
    paths = [join(out, ROWS, name) for name in names(out, ROWS)]
    for kind in (RESULTS, ERRORS):
        cut = [name for name in names(out, kind) if name[0] == "_"]
        paths += [join(out, kind, name) for name in cut]
    if paths:
        _files().delete(paths)


def read_picture(row, column):
    """Read the picture of a row below a local folder or an address.

    Args:
        row: `Row` with `folder` as a str.
        column: str.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        ValueError: no such file, or not a picture.
        OSError: the storage fails. The runner tries the shard again.
    """
    if "://" not in row.folder:
        path = pathlib.Path(row.folder, row.values[column])
        return open_image(path, column)
    path = join(row.folder, row.values[column])
    try:
        data = read(path)
    except OSError as error:
        if _files().exists(path):
            raise
        raise ValueError(
            f"`{column}` must be a file that exists. Received: {path!r}"
        ) from error
    return open_file(io.BytesIO(data), path, column)


def to_parquet(results, verb):
    """Convert results of rows to the content of a Parquet file.

    Args:
        results: list of dict without `"error"`, see `run_rows`.
        verb: `Verb`.

    Returns:
        bytes. The columns are `row`, `id` (a string; other values as JSON),
        the inputs of the verb, and its results.
    """
    import pyarrow
    from pyarrow import parquet

    texts = (ID, *verb.columns)
    fields = [("row", pyarrow.int64())]
    fields += [(column, pyarrow.string()) for column in texts]
    fields += [
        (column, _arrow_type(pyarrow, kind))
        for column, kind in verb.results.items()
    ]
    rows = [
        {
            "row": result["row"],
            **{column: _text(result.get(column)) for column in texts},
            **{c: named(kind, result[c]) for c, kind in verb.results.items()},
        }
        for result in results
    ]
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema(fields))
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def _arrow_type(pyarrow, kind):
    """Return the Arrow type of a kind of `Verb.results`."""
    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(pyarrow, kind[0]))
    if isinstance(kind, tuple):
        text, number = kind
        pair = [(text, pyarrow.string()), (number, pyarrow.float64())]
        return pyarrow.list_(pyarrow.struct(pair))
    return {
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
        float: pyarrow.float64(),
        list: pyarrow.list_(pyarrow.float32()),
    }[kind]


def _text(value):
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def join(folder, *parts):
    """Join a folder, or an address such as `gs://b/f`, and parts of a path."""
    return "/".join([folder.rstrip("/"), *parts])


def names(*folder):
    """List the files of a folder, or none if there is no such folder."""
    folder = join(*folder)
    try:
        if "://" not in folder:
            return sorted(os.listdir(folder))
        (found,) = _files().match([join(folder, "*")])
    except OSError:
        return []
    return sorted(data.path.rsplit("/", 1)[1] for data in found.metadata_list)


def read(path):
    """Read the bytes of a file."""
    with _files().open(path, compression_type="uncompressed") as file:
        return file.read()


def write(path, data):
    """Write a file as a whole or not at all."""
    files = _files()
    folder, name = path.rsplit("/", 1)
    # Two workers may write the same file, each under its own name.
    part = f"{folder}/_{uuid.uuid4().hex}-{name}"
    with files.create(part, compression_type="uncompressed") as file:
        file.write(data)
    if pathlib.Path(part).exists():
        move_into_place(part, path)
    else:
        files.rename([part], [path])


def _lines(values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def _files():
    return load_extra("apache_beam.io.filesystems", "beam").FileSystems
