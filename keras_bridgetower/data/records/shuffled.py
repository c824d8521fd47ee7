"""Checks and shuffles records in a file, since memory may be too small."""

import contextlib
import pathlib
import pickle
import sqlite3
import tempfile

import numpy as np

_TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE records (data BLOB);
CREATE TABLE names (kind TEXT, name TEXT);
CREATE TABLE places (record INTEGER);
"""
_REPEATED = """
SELECT kind, name FROM names GROUP BY kind, name HAVING count(*) > 1 LIMIT 1
"""
_READ = """
SELECT (SELECT data FROM records WHERE records.rowid = record) FROM places
WHERE rowid > ? AND rowid <= ? ORDER BY rowid
"""


@contextlib.contextmanager
def written(place, split, records, labels, seed):
    """Write records into a file that is there in the context.

    Memory does not grow with the number of records: SQLite finds repeated ids
    on the disk. The file has pickles, so only this user may write to it.

    Args:
        place: `Folder` or `ShardStore`, whose folder, or else `TMPDIR`, has
            the file.
        split: str, name of the split.
        records: iterable of `Record` or `Draft`.
        labels: list of str.
        seed: int, seed of the order in which they are read.

    Yields:
        `(path, count)`, the path of the file and the number of records.

    Raises:
        ValueError: there are no records, ids or keys are repeated, or a sample
            is wrong.
        OSError: the disk is full or not writable.
    """
    with place.local_copy(f".{split}.rows") as path:
        # A killed process has left one.
        path.unlink(missing_ok=True)
        try:
            with _opened(path) as database:
                count = _write(database, split, records, len(labels), seed)
            yield path, count
        except sqlite3.Error as error:
            raise OSError(f"{path} could not be used: {error}") from error
        finally:
            path.unlink(missing_ok=True)


def _write(database, split, records, num_labels, seed):
    """Write records into a database, and return their number."""
    database.executescript(_TABLES)
    count = 0
    for record in records:
        names = [("key", record.key)]
        for sample in record.samples:
            check_sample(sample, num_labels)
            names.append(("id", sample.id))
        database.executemany("INSERT INTO names VALUES (?, ?)", names)
        data = pickle.dumps(record)
        database.execute("INSERT INTO records VALUES (?)", [data])
        count += 1
    if not count:
        raise ValueError(f"The split is empty. Received: split={split!r}")
    for kind, name in database.execute(_REPEATED):
        raise ValueError(
            f"Every {kind} must occur once in a split. Received: "
            f"{kind}={name!r} twice in split={split!r}"
        )
    rows = ([int(row)] for row in _permutation(count, seed))
    database.executemany("INSERT INTO places VALUES (? + 1)", rows)
    database.commit()
    return count


def check_records(split, records, labels):
    """Raise the errors of `written`, without a file of these records."""
    # SQLite's own temporary file.
    with contextlib.closing(sqlite3.connect("")) as database:
        _write(database, split, records, len(labels), seed=0)


def read(path, start, stop):
    """Yield the records at places from `start` to `stop`, exclusive."""
    with _opened(path) as database:
        for (data,) in database.execute(_READ, [start, stop]):
            yield pickle.loads(data)


def check_sample(sample, count):
    """Raise if the labels, scores or text of a sample are wrong.

    Args:
        sample: `Sample`.
        count: int, number of the data set's labels.
    """
    if not all(0 <= label < count for label in sample.labels) or len(
        sample.scores
    ) not in (0, len(sample.labels)):
        raise ValueError(
            f"Labels must be positions in the list of {count} labels, and "
            f"scores as many or none. Received: {sample!r:.300}"
        )
    try:
        sample.text.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise ValueError(
            "A text must be a string without lone surrogates. Received: "
            f"{sample!r:.300}"
        ) from error


def _opened(path):
    # One process writes before others read, and some file systems of clusters
    # have no locks.
    uri = f"{pathlib.Path(path).absolute().as_uri()}?nolock=1"
    return contextlib.closing(sqlite3.connect(uri, uri=True))


def _permutation(count, seed):
    """Return NumPy's random permutation, as an array on the disk."""
    with tempfile.TemporaryFile() as file:
        # `shuffle` is slow with subclasses of arrays.
        order = np.asarray(np.memmap(file, "int64", "w+", shape=count))
    order[1:] = 1
    np.cumsum(order, out=order)
    np.random.default_rng(seed).shuffle(order)
    return order
