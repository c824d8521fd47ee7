"""Run any task over a folder of pictures or a table, into a JSONL file.

    python -m keras_bridgetower.apps.predict PRESET TASK SOURCE OUT
    python -m keras_bridgetower.apps.predict bridgetower_tiny_easy_vqa vqa \\
        photos answers.jsonl --text "what shape is it?" \\
        --text "what color is it?"
    python -m keras_bridgetower.apps.predict PRESET entailment pairs.csv \\
        labels.jsonl

SOURCE is a folder of pictures, known by their content, each taken with every
`--text`; or a table, .csv with a header or .jsonl, with the columns that the
task reads (see --help), pictures as paths below its folder. OUT starts with a
line that says what made it; then comes one line for each row, in their order,
with the row's `id` where it has one. The same command continues an OUT that was
interrupted, and refuses one of another model, of other rows or of pictures that
were changed. A row that cannot be read gets a line with `"error"`; what of a
folder was passed over is counted at the end.
"""

import argparse
import itertools
import pathlib
import sys

import keras

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import rows as prediction_rows
from keras_bridgetower.apps.predict.batches import results_of
from keras_bridgetower.apps.predict.verbs import VERBS
from keras_bridgetower.apps.predict.verbs import check_settings
from keras_bridgetower.apps.predict.verbs import open_task


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="columns by task: "
        + "; ".join(
            f"{name}: {','.join(v.columns)}" for name, v in VERBS.items()
        ),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("preset")
    parser.add_argument("task", choices=VERBS)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--outside",
        action="store_true",
        help="a table may name pictures anywhere",
    )
    arguments = parser.parse_args()
    try:
        bad, passed_over = run(**vars(arguments))
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(*report(bad, passed_over), sep="\n")


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
    """Run a task of a preset over a folder or a table.

    Args:
        preset: as the `from_preset` of a task takes it.
        task: str, key of `VERBS`.
        source: path of a folder of pictures, or of a table.
        out: path of the JSONL file.
        text: list of str. Each row of the source is taken with each.
        top_k, batch_size, on_rows: as `predict` takes them.
        outside: bool, whether a table may name pictures anywhere.

    Returns:
        The number of rows of the file that could not be read, and a `Counter`
        of what of a folder was passed over.

    Raises:
        UnfitSetting: a text or a `top_k` with which no row can be predicted.
        ValueError: a source, a preset or a file that does not fit.
        OSError: a file that cannot be read or written.
    """
    verb = VERBS[task]
    output.check_file(out)
    rows = prediction_rows.open_rows(
        source, verb.columns, verb.optional, text, outside, out
    )
    model = open_task(task, preset)
    check_settings(model, task, text, top_k)
    predict(
        model,
        task,
        rows,
        out,
        top_k=top_k,
        batch_size=batch_size,
        on_rows=on_rows,
    )
    return output.count_errors(out), +rows.passed_over


def report(bad, passed_over):
    """What a run left out, in lines; see `run`."""
    yield f"{bad} rows could not be read; each has a line with its error."
    if passed_over:
        told = ", ".join(
            f"{n} {what}" for what, n in sorted(passed_over.items())
        )
        yield f"passed over, as no picture that is read: {told}"


def predict(
    task, name, rows, out, top_k=1, batch_size=32, verbose=1, on_rows=None
):
    """Write a line for each row, after those that a file already has.

    Args:
        task: a task.
        name: str, key of `VERBS`.
        rows: what `prediction_rows.open_rows` returned.
        out: path of the file.
        top_k: int, answers or tokens of a row, where the task gives several.
        batch_size: int, rows of a forward pass; about two batches of pictures
            are held in memory.
        verbose: int, 0 for no progress bar.
        on_rows: callable of the rows that are done and of all, in the place
            of the progress bar.

    Returns:
        int, the rows of this run that could not be read.

    Raises:
        ValueError: the file is of another model, task or setting, of other
            rows or pictures, or another process is writing it.
    """
    header = output.header_of(task, name, rows, top_k)
    bad = 0
    with output.PredictionFile(out, header) as file:
        on_rows = on_rows or _bar(rows.count, verbose)
        on_rows(file.rows_written, rows.count)
        waiting = itertools.islice(rows, file.rows_written, None)
        for made in results_of(task, name, waiting, top_k, batch_size):
            file.write(made)
            bad += sum("error" in result for result in made)
            on_rows(file.rows_written, rows.count)
    return bad


def _bar(count, verbose):
    """Keras' progress bar, as `on_rows` of `predict`."""
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="row")

    def update(done, total):
        bar.update(done, finalize=done == total)

    return update
