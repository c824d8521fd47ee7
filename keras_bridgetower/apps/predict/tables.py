"""Reads the rows of a table, .csv or .jsonl, and says what is wrong."""

import csv
import itertools

from keras_bridgetower.files import parse_json


def _json_lines(path, columns, passed_over):
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield _json_row(line)


def _json_row(line):
    try:
        values = parse_json(line)
    except ValueError as error:
        return {}, f"it must be JSON in UTF-8: {error}"
    if not isinstance(values, dict):
        return {}, f"it must be a JSON object. Received: {line[:80]!r}"
    return values, None


def _csv(path, columns, passed_over):
    # A long text is told as one; Python would refuse its table.
    csv.field_size_limit(2**31 - 1)
    # What is not UTF-8 comes in as a lone surrogate, which is then refused.
    with open(
        path, encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as file:
        rows = csv.DictReader(file, strict=True)
        begin = 1
        try:
            _check_header(path, rows.fieldnames or [], columns)
            begin = rows.line_num + 1
            for values in rows:
                yield values, _not_utf8(values) or _too_long(values)
                begin = rows.line_num + 1
        # Which rows come after it, nobody can tell.
        except csv.Error as error:
            raise ValueError(
                f"{path} must be a table with commas, in which each quote "
                "that opens a cell also ends it. Received: a row from line "
                f"{begin} that fails with: {error}"
            ) from error


def _check_header(path, found, columns):
    if not set(columns) <= set(found):
        raise ValueError(
            f"{path} must begin with a header that names the columns "
            f"{', '.join(columns)}, with commas between. Received: {found}"
        )
    if len(set(found)) < len(found):
        raise ValueError(
            f"The header of {path} must name each column once. Received: "
            f"{found}"
        )


def _too_long(values):
    if None not in values:
        return None
    return (
        "it must have as many cells as the header. Received: "
        f"{len(values[None])} more, the last of which is "
        f"{values[None][-1]!r:.80}. Put a text with commas between quotes"
    )


def _not_utf8(values):
    texts = itertools.chain(*values.items())
    try:
        "".join(text for text in texts if isinstance(text, str)).encode()
    except UnicodeEncodeError:
        return "it must be UTF-8"
    return None


TABLES = {".csv": _csv, ".jsonl": _json_lines}
