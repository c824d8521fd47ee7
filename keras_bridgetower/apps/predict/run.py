"""Runs a verb over a folder or a table, and writes a JSONL file.

The file starts with a line that identifies the model, the rows and the
settings. Then it has one line for each row, in order, with the row's `id` if
it has one. The same run continues a file that was interrupted, and refuses a
file of another model, of other rows or of pictures that were changed. A row
that cannot be read gets a line with `"error"`.
"""

import itertools

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.batches import run_rows
from keras_bridgetower.apps.predict.rows import open_rows
from keras_bridgetower.tasks import by_name


def run(
    preset,
    task,
    source,
    out,
    text=(),
    top_k=1,
    batch_size=32,
    outside=False,
    on_rows=lambda done, total: None,
):
    """Run a verb of a preset over a folder or a table.

    Args:
        preset: as the `from_preset` of a task takes it.
        task: str, the name of a `Verb`.
        source: path of a folder of pictures, or of a table.
        out: path of the JSONL file.
        text: list of str. Each row of the source is used with each.
        top_k: int, answers or tokens per row, if the verb returns several.
        batch_size: int, rows per forward pass. About two batches of pictures
            are in memory.
        outside: bool, True if a table may name pictures outside its folder.
        on_rows: callable of the numbers of finished rows and of all rows.

    Returns:
        The number of unreadable rows, and a `Counter` of skipped files.

    Raises:
        ValueError: a source, a preset or a file of the wrong kind, or a task,
            a text or a `top_k` with which every row would fail.
        OSError: a file that cannot be read or written.
    """
    output.check_file(out)
    model, verb, rows = open_run(preset, task, source, text, top_k, outside)
    predict(model, verb, rows, out, top_k, batch_size, on_rows)
    return output.count_errors(out), +rows.passed_over


def open_run(preset, task, source, text, top_k, outside):
    """Return the task, the verb and the rows of a run."""
    model = by_name.open_verb(preset, task)
    _, verb = by_name.verbs()[task]
    model.check_request(text, top_k)
    rows = open_rows(
        source, tuple(verb.inputs), tuple(verb.optional), text, outside
    )
    return model, verb, rows


def predict(
    task,
    verb,
    rows,
    out,
    top_k=1,
    batch_size=32,
    on_rows=lambda done, total: None,
):
    """Write a line for each of `Rows`, after those that a file already has.

    Raises:
        ValueError: the file is of another model, task or setting, of other
            rows or pictures, or another process is writing it.
    """
    header = output.make_header(task, verb, rows, top_k)
    with output.prediction_file(out, header) as (done, append):
        on_rows(done, rows.count)
        waiting = itertools.islice(rows, done, None)
        for results in run_rows(task, verb, waiting, top_k, batch_size):
            append(results)
            done += len(results)
            on_rows(done, rows.count)
