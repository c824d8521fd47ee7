"""Runs a task on rows, batch by batch, while pictures are read ahead."""

import collections
import concurrent.futures
import dataclasses
import itertools

from keras_bridgetower.predict.rows import ID
from keras_bridgetower.predict.rows import PICTURES
from keras_bridgetower.predict.verbs import VERBS
from keras_bridgetower.preprocessing.images import open_image


def open_picture(row, column):
    """The picture of a row as an RGB `PIL.Image`, or a ValueError."""
    return open_image(row.path(column), column)


def results_of(task, name, rows, top_k, batch_size, read=open_picture):
    """What a task says of rows, in their order.

    Args:
        task: a task.
        name: str, key of `VERBS`.
        rows: iterable of `Row`.
        top_k: int, answers or tokens of a row.
        batch_size: int, rows of a forward pass; about two batches of pictures
            are held in memory.
        read: callable of a `Row` and the name of a column, which returns the
            picture. A ValueError of it becomes the error of the row.

    Yields:
        list of dicts, one for each row of a batch: `"row"`, the values of the
        row, and the results or `"error"`.
    """
    verb = VERBS[name]
    for batch in _read_ahead(iter(rows), batch_size, read):
        yield _results(task, verb, batch, top_k)


def _read_ahead(rows, batch_size, read):
    """Batches of rows with their pictures, read while the model runs."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        batches = collections.deque()
        while True:
            some = list(itertools.islice(rows, batch_size))
            if some:
                batches.append(
                    [pool.submit(_with_pictures, row, read) for row in some]
                )
            if not batches:
                return
            if len(batches) > 1 or not some:
                yield [future.result() for future in batches.popleft()]


def _with_pictures(row, read):
    """The row as it is written, and as a model takes it."""
    if row.error:
        return row, {}
    taken = {k: v for k, v in row.values.items() if k != ID}
    try:
        for column in PICTURES & set(taken):
            taken[column] = read(row, column)
    except ValueError as error:
        return dataclasses.replace(row, error=str(error)), {}
    return row, taken


def _results(task, verb, batch, top_k):
    good = [(row, taken) for row, taken in batch if row.error is None]
    found = iter(_verb_results(task, verb, [taken for _, taken in good], top_k))
    results = []
    for row, _ in batch:
        result = {"error": row.error} if row.error else next(found)
        results.append({"row": row.number, **row.values, **result})
    return results


def _verb_results(task, verb, taken, top_k):
    """What the verb finds for each row, or why it does not."""
    if not taken:
        return []
    try:
        # Rows with a second text and rows without are no batch: an error.
        (names,) = {tuple(row) for row in taken}
        columns = {name: [row[name] for row in taken] for name in names}
        return verb.function(task, columns, top_k)
    except ValueError as error:
        if len(taken) == 1:
            return [{"error": str(error)}]
        # One row spoils a batch: each on its own tells which.
        alone = (_verb_results(task, verb, [row], top_k) for row in taken)
        return [result for results in alone for result in results]
