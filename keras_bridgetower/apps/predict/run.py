"""Runs a verb of a preset over a folder or a table, into a JSONL file.

The file starts with a line that identifies the model, the rows and the
settings. Then it has one line for each row, in order, with the row's `id` if
it has one. The same run continues a file that was interrupted, and refuses a
file of another model, of other rows or of pictures that were changed. A row
that cannot be read gets a line with `"error"`.
"""

import itertools

import keras

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.batches import run_rows
from keras_bridgetower.apps.predict.rows import open_rows
from keras_bridgetower.tasks import by_name


class UnfitSetting(ValueError):
    """A setting with which every row would fail."""


def run(
    preset,
    task,
    source,
    out,
    text=(),
    top_k=1,
    batch_size=32,
    outside=False,
    on_rows=None,
):
    """Run a verb of a preset over a folder or a table.

    Args:
        preset: as the `from_preset` of a task takes it.
        task: str, the name of a `Verb`.
        source: path of a folder of pictures, or of a table.
        out: path of the JSONL file.
        text: list of str. Each row of the source is used with each.
        top_k, batch_size, on_rows: as in `predict`.
        outside: bool, True if a table may name pictures outside its folder.

    Returns:
        The number of rows of the file that could not be read, and a `Counter`
        of files of a folder that were skipped.

    Raises:
        UnfitSetting: a task, a text or a `top_k` with which every row would
            fail.
        ValueError: a source, a preset or a file of the wrong kind.
        OSError: a file that cannot be read or written.
    """
    verb = verb_named(task)
    output.check_file(out)
    rows = open_rows(
        source, tuple(verb.inputs), tuple(verb.optional), text, outside, out
    )
    model = by_name.open_verb(preset, task)
    check_request(model, text, top_k)
    predict(model, verb, rows, out, top_k, batch_size, on_rows=on_rows)
    return output.count_errors(out), +rows.passed_over


def verb_named(name):
    """Return a `Verb` by its name, or raise UnfitSetting."""
    known = by_name.verbs()
    if name not in known:
        raise UnfitSetting(
            f"TASK must be one of {', '.join(known)}. Received: {name!r}"
        )
    return known[name][1]


def check_request(task, texts=(), top_k=1):
    """Raise UnfitSetting for texts or a `top_k` that the task refuses."""
    try:
        task.check_request(texts, top_k)
    except ValueError as error:
        raise UnfitSetting(str(error)) from error


def report(bad, passed_over):
    """Yield lines about the rows and files that a run left out."""
    yield f"{bad} rows could not be read; each has a line with its error."
    if passed_over:
        counts = ", ".join(
            f"{n} {what}" for what, n in sorted(passed_over.items())
        )
        yield f"skipped, not a picture in a known format: {counts}"


def predict(
    task, verb, rows, out, top_k=1, batch_size=32, verbose=1, on_rows=None
):
    """Write a line for each row, after those that a file already has.

    Args:
        task: a task.
        verb: `Verb` of the task.
        rows: `Rows`.
        out: path of the file.
        top_k: int, answers or tokens per row, if the verb returns several.
        batch_size: int, rows per forward pass. About two batches of pictures
            are in memory.
        verbose: int, 0 for no progress bar.
        on_rows: callable of the numbers of finished rows and of all rows,
            instead of the progress bar.

    Returns:
        int, the rows of this run that could not be read.

    Raises:
        ValueError: the file is of another model, task or setting, of other
            rows or pictures, or another process is writing it.
    """
    header = output.make_header(task, verb, rows, top_k)
    bad = 0
    with output.PredictionFile(out, header) as file:
        on_rows = on_rows or _bar(rows.count, verbose)
        on_rows(file.rows_written, rows.count)
        waiting = itertools.islice(rows, file.rows_written, None)
        for results in run_rows(task, verb, waiting, top_k, batch_size):
            file.write(results)
            bad += sum("error" in result for result in results)
            on_rows(file.rows_written, rows.count)
    return bad


def _bar(count, verbose):
    """Return Keras' progress bar, as `on_rows` of `predict`."""
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="row")

    def update(done, total):
        bar.update(done, finalize=done == total)

    return update
