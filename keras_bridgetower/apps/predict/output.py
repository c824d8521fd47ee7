"""Writes predictions to a JSONL file, new or begun."""

import contextlib
import json
import os

from keras_bridgetower import files
from keras_bridgetower.tasks import identity

# Start of the first line.
START = b'{"predictions":'


@contextlib.contextmanager
def prediction_file(path, header):
    """Open a file of predictions after its last complete line.

    Args:
        path: path of the file, new or begun.
        header: dict of plain values on which the results depend, its first
            line.

    Yields:
        The number of rows in the file, and a callable that appends a line for
        each dict of a list.

    Raises:
        ValueError: the file was begun with another header, is another kind of
            file, or is being written by another process.
    """
    check_file(path)
    with locked(path):
        size, rows = _whole_lines(path, header)
        with open(path, "ab") as file:

            def append(results):
                file.write(json_lines(results))
                file.flush()
                os.fsync(file.fileno())

            file.truncate(size)
            if not size:
                append([{"predictions": header}])
            yield rows, append


def json_lines(values):
    """Return a line of JSON for each value, as bytes."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def _whole_lines(path, header):
    """Count the bytes and the rows of the complete lines of a file."""
    size, lines, last = 0, 0, None
    if not os.path.exists(path):
        return 0, 0
    with open(path, "rb") as file:
        for line in file:
            complete = line.endswith(b"\n")
            # The start of a header that was cut off needs no check.
            cut = not complete and START.startswith(line[: len(START)])
            if not lines and not cut:
                check_header(line, header, path)
            if not complete:
                break
            size, lines, last = size + len(line), lines + 1, line
    # The first line is the header.
    rows = max(lines - 1, 0)
    if rows and files.parse_json(last)["row"] != rows - 1:
        raise ValueError(
            f"{path} must hold the rows in their order. Write to another file. "
            f"Received: {last[:80]!r} at the end of {rows} lines"
        )
    return size, rows


def check_header(text, header, path):
    """Check that the first line of an output has the needed header."""
    try:
        found = dict(files.parse_json(text)["predictions"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "OUT must be new, or begun by this tool. "
            f"Received: {str(path)!r}, which is another file"
        ) from error
    other = [k for k, v in header.items() if found.get(k) != v]
    if other:
        raise ValueError(
            "OUT must be of the same model, data and settings. Write "
            f"elsewhere, or delete it. Received: {str(path)!r}, differing in: "
            f"{', '.join(other)}"
        )


def locked(path):
    """Return a context that locks a file or folder, which may not exist yet.

    `<path>.lock` is never deleted: otherwise two processes could each lock a
    file of that name.

    Raises:
        ValueError: a link, or another process is writing.
    """
    files.check_no_link(path, "OUT")
    return files.one_writer(
        f"{path}.lock",
        "OUT must be written by one process at a time. Wait for the other one, "
        f"or write elsewhere. Received: {str(path)!r}",
    )


def check_file(path):
    """Reject a folder, pipe or device before a model is loaded."""
    if os.path.exists(path):
        files.open_regular(path).close()


def count_errors(path):
    """Count the rows of a file that have an error."""
    with open(path, "rb") as file:
        # Most lines need not be parsed.
        lines = (line for line in file if b'"error"' in line)
        return sum("error" in files.parse_json(line) for line in lines)


def make_header(task, verb, rows, top_k):
    """Return the values on which results depend, a dict of plain values."""
    preprocessor = task.needed_preprocessor()
    return {
        "task": verb.name,
        "model": identity.model_checksum(task),
        "dtype": task.backbone.dtype_policy.name,
        **identity.picture_settings(preprocessor),
        **identity.text_settings(preprocessor),
        "rows": rows.sum,
        "pictures": rows.pictures,
        "top_k": top_k,
    }
