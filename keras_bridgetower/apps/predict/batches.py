"""Runs a task on rows, batch by batch, while pictures are read ahead."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools

from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.rows import PICTURES
from keras_bridgetower.apps.predict.verbs import VERBS
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
    taken = functools.partial(with_pictures, read=read)
    for batch in read_ahead(rows, batch_size, taken):
        yield _results(task, verb, batch, top_k, batch_size)


def read_ahead(items, batch_size, read):
    """Batches of items, read by threads while a model runs on those before.

    Args:
        items: iterable.
        batch_size: int. About two batches are held in memory.
        read: callable of an item.

    Yields:
        list, what `read` returned for each item of a batch.
    """
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
    """The results of a batch, in which one bad item does no harm to others.

    Args:
        function: callable of a list of items that returns a list, and raises
            a ValueError where it cannot read one.
        items: list.
        refused: callable of that error, which returns the result of its item.

    Returns:
        list, a result for each item.
    """
    if not items:
        return []
    try:
        return function(items)
    except ValueError as error:
        if len(items) == 1:
            return [refused(error)]
        # Each on its own tells which it is.
        alone = (each_or_refused(function, [item], refused) for item in items)
        return [result for results in alone for result in results]


def with_pictures(row, read=open_picture):
    """Open the pictures of a row.

    Args:
        row: `Row`.
        read: as `results_of` takes it.

    Returns:
        `(row, taken)`: the row as it is written, with the error of a picture
        that cannot be read, and a dict of its columns as a model takes them.
    """
    if row.error:
        return row, {}
    taken = {k: v for k, v in row.values.items() if k != ID}
    try:
        for column in PICTURES & set(taken):
            taken[column] = read(row, column)
    except ValueError as error:
        return dataclasses.replace(row, error=str(error)), {}
    return row, taken


def _results(task, verb, batch, top_k, batch_size):
    good = [(row, taken) for row, taken in batch if row.error is None]
    taken = [taken for _, taken in good]
    found = iter(_verb_results(task, verb, taken, top_k, batch_size))
    results = []
    for row, _ in batch:
        result = {"error": row.error} if row.error else next(found)
        results.append({"row": row.number, **row.values, **result})
    return results


def _verb_results(task, verb, taken, top_k, batch_size):
    """What the verb finds for each row, or why it does not."""

    def asked(some):
        # Rows with a second text and rows without are no batch: an error.
        (names,) = {tuple(row) for row in some}
        columns = {name: [row[name] for row in some] for name in names}
        return verb.function(task, columns, top_k, batch_size)

    return each_or_refused(asked, taken, lambda e: {"error": str(e)})
