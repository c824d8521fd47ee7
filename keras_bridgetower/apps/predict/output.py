"""Writes predictions to a JSONL file, or continues an unfinished one."""

import contextlib
import json
import os
import pathlib
import stat

from keras_bridgetower.apps.predict.identity import compute_dtype
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.apps.predict.identity import reading_values
from keras_bridgetower.files import KERNEL
from keras_bridgetower.files import KINDS
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import one_writer
from keras_bridgetower.files import parse_json

_ONE_WRITER = (
    "OUT must be written by one process at a time. Wait for the other one, or "
    "write to another {}. Received: '{}'"
)
# Start of the first line.
START = b'{"predictions":'


class PredictionFile:
    """A header line, then a line of results for each row.

    `<path>.lock` allows one process at a time to write. It is released when
    that process ends, and never deleted: otherwise two processes could each
    lock a file of that name.

    Args:
        path: path of the file, new or begun.
        header: dict of plain values on which the results depend.

    Attributes:
        rows_written: int, number of rows in the file.

    Raises:
        ValueError: the file was begun with another header, is another kind of
            file, or is being written by another process.
        OSError: it is a folder.
    """

    def __init__(self, path, header):
        self._path = pathlib.Path(path)
        self._header = header
        self.rows_written = 0
        self._open = contextlib.ExitStack()
        self._file = None

    def __enter__(self):
        check_file(self._path)
        # Check before a lock is created.
        self._read_whole_lines()
        with contextlib.ExitStack() as opened:
            text = _ONE_WRITER.format("file", self._path)
            opened.enter_context(one_writer(f"{self._path}.lock", text))
            whole = self._read_whole_lines()
            self._file = opened.enter_context(open(self._path, "ab"))
            self._file.truncate(whole)
            if not whole:
                self._append([{"predictions": self._header}])
            self._open = opened.pop_all()
        return self

    def __exit__(self, *error):
        self._open.close()

    def write(self, results):
        """Append a line for each dict."""
        self._append(results)
        self.rows_written += len(results)

    def _append(self, lines):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read_whole_lines(self):
        """Count rows; return the bytes up to the end of the last whole line."""
        self.rows_written = 0
        if not self._path.exists():
            return 0
        whole, last, rest = 0, None, b""
        with open(self._path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    rest = line
                    break
                if number == 0:
                    check_header(line, self._header, self._path)
                whole, last, self.rows_written = whole + len(line), line, number
        # No whole line: our first one, cut off, or another kind of file.
        if not whole and not START.startswith(rest[: len(START)]):
            check_header(rest, self._header, self._path)
        row = parse_json(last)["row"] if self.rows_written else -1
        if row != self.rows_written - 1:
            raise ValueError(
                f"{self._path} must hold the rows in their order. Received: "
                f"row {row} at the end of {self.rows_written} lines. Write to "
                "another file."
            )
        return whole


def check_header(text, header, path):
    """Raise if an output was begun with another model, rows or settings.

    Args:
        text: str or bytes, the header that was found.
        header: dict, the one that is needed.
        path: path of the output, for messages.

    Raises:
        ValueError: they differ, or `text` is no header.
    """
    try:
        found = parse_json(text)["predictions"]
        other = [k for k, v in header.items() if found.get(k) != v]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "OUT must be new, or begun by this tool. "
            f"Received: {str(path)!r}, which is another file"
        ) from error
    if other:
        raise ValueError(
            "OUT must be of the same model, rows, pictures and settings. "
            "Write to another file, or delete it. Received: "
            f"{str(path)!r}, differing in: {', '.join(other)}"
        )


def check_folder(path):
    """Raise if the folder of a file does not exist, before a model is loaded.

    Args:
        path: path of the file.

    Raises:
        ValueError: no such folder.
    """
    folder = pathlib.Path(path).parent
    if not folder.is_dir():
        raise ValueError(
            "OUT must be in an existing folder. Create it, or choose another. "
            f"Received: {str(path)!r}, and no folder {str(folder)!r}"
        )


@contextlib.contextmanager
def locked(folder):
    """Return a context in which no other process writes to a folder.

    Args:
        folder: path of the folder, which may not exist yet.

    Raises:
        ValueError: a file, a link, a missing parent folder, or another
            process is writing.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(
            f"OUT must be a folder. Received: the file {str(folder)!r}"
        )
    check_folder(folder)
    check_no_link(folder, "OUT")
    with one_writer(f"{folder}.lock", _ONE_WRITER.format("folder", folder)):
        yield


def check_file(path):
    """Raise if a path is not a plain file, before a model is loaded.

    Args:
        path: path of the file.

    Raises:
        ValueError: no such folder, a link, a pipe, a device or a file of the
            kernel.
        IsADirectoryError: a folder.
    """
    check_folder(path)
    path = pathlib.Path(path)
    folder = os.path.realpath(path.parent)
    kind = None
    # Such as /dev/stdout.
    if folder == "/dev" or folder.split(os.sep)[1:2] in [[k] for k in KERNEL]:
        kind = "a file of the kernel"
    elif path.is_dir():
        kind = "a folder"
    elif path.exists():
        kind = KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind:
        refused = IsADirectoryError if path.is_dir() else ValueError
        raise refused(
            "OUT must be a plain file, or not exist yet. "
            f"Received: {str(path)!r}, {kind}"
        )
    check_no_link(path, "OUT")


def count_errors(path):
    """Count the rows of a file that have an error."""
    with open(path, "rb") as file:
        # Most lines need not be parsed.
        return sum(
            b'"error"' in line and "error" in parse_json(line) for line in file
        )


def make_header(task, verb, rows, top_k):
    """Return the values on which results depend.

    Args:
        task: a task.
        verb: `Verb`.
        rows: `Rows`.
        top_k: int.

    Returns:
        dict of plain values.
    """
    return {
        "task": verb.name,
        "model": model_checksum(task),
        "dtype": compute_dtype(task),
        **reading_values(task.needed_preprocessor()),
        "rows": rows.sum,
        "pictures": rows.pictures,
        "top_k": top_k,
    }
