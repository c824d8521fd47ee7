"""Runs a verb on batches of rows while the next pictures are read."""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import os

from keras_bridgetower import checks
from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.rows import PICTURES
from keras_bridgetower.preprocessing.images import open_file
from keras_bridgetower.preprocessing.images import open_image


def files():
    """Return Beam's `FileSystems`, which opens addresses such as `gs://b/f`."""
    return checks.load_extra("apache_beam.io.filesystems", "beam").FileSystems


def read(path):
    """Read the bytes of a file, which may be an address."""
    with files().open(path, compression_type="uncompressed") as file:
        return file.read()


def open_picture(row, column):
    """Open the picture in a column of a `Row` as an RGB `PIL.Image.Image`.

    Raises:
        ValueError: no such file, or not a picture.
        OSError: the storage fails. The runner tries the shard again.
    """
    path = os.path.join(row.folder, row.values[column])
    if "://" not in str(row.folder):
        return open_image(path, column)
    try:
        data = read(path)
    except OSError as error:
        if files().exists(path):
            raise
        raise ValueError(
            f"`{column}` must be a file that exists. Received: {path!r}"
        ) from error
    return open_file(io.BytesIO(data), path, column)


def run_rows(task, verb, rows, top_k, batch_size):
    """Run a verb on rows, in their order.

    Args:
        task: a task.
        verb: `Verb` of the task.
        rows: iterable of `Row`.
        top_k: int, answers or tokens per row.
        batch_size: int, rows per forward pass.

    Yields:
        list of dict, one for each row of a batch: `"row"`, the values of the
        row, and the results or `"error"`.
    """
    for batch in read_ahead(rows, batch_size, with_pictures):
        good = [inputs for row, inputs in batch if row.error is None]
        found = iter(_run_verb(task, verb, good, top_k, batch_size))
        yield [
            {
                "row": row.number,
                **row.values,
                **({"error": row.error} if row.error else next(found)),
            }
            for row, _ in batch
        ]


def read_ahead(items, batch_size, read):
    """Yield batches of `read(item)`, which threads compute one batch ahead.

    Args:
        items: iterable.
        batch_size: int. About two batches are in memory.
        read: callable of an item.
    """
    checks.check_count("batch_size", batch_size)
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        batches = collections.deque()
        while True:
            some = list(itertools.islice(items, batch_size))
            if some:
                batches.append([pool.submit(read, item) for item in some])
            if not batches:
                return
            if len(batches) > 1 or not some:
                yield [future.result() for future in batches.popleft()]


def each_or_refused(function, items, refused):
    """Run a function on a batch; only bad items get an error as result.

    Args:
        function: callable of a list of items that returns a list, and raises
            ValueError if it cannot read one of them.
        items: list.
        refused: callable of that error that returns the result of its item.
    """
    if not items:
        return []
    try:
        return function(items)
    except ValueError as error:
        if len(items) == 1:
            return [refused(error)]
        # One by one, to find which item it is.
        alone = (each_or_refused(function, [item], refused) for item in items)
        return [result for results in alone for result in results]


def each_in_batches(function, items, batch_size):
    """Run a function on batches; a bad item gets a ValueError as result.

    Args:
        function, items: as in `each_or_refused`.
        batch_size: int.
    """
    found = []
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        # The error that was raised would keep its picture in memory.
        found += each_or_refused(function, part, lambda e: ValueError(str(e)))
    return found


def with_pictures(row):
    """Open the pictures of a `Row`.

    Returns:
        The row, with an error if a picture cannot be read; and a dict of its
        columns as the model reads them.
    """
    if row.error:
        return row, {}
    inputs = {k: v for k, v in row.values.items() if k != ID}
    try:
        for column in PICTURES & set(inputs):
            inputs[column] = open_picture(row, column)
    except ValueError as error:
        return dataclasses.replace(row, error=str(error)), {}
    return row, inputs


def _run_verb(task, verb, rows, top_k, batch_size):
    """Return the results of a verb for each row, or `{"error": text}`."""

    def run(rows):
        # Rows with a second text and rows without cannot be one batch.
        (names,) = {tuple(row) for row in rows}
        columns = {name: [row[name] for row in rows] for name in names}
        return verb.run(task, columns, top_k, batch_size)

    return each_or_refused(run, rows, lambda error: {"error": str(error)})
