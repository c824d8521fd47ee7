"""Runs a task over millions of rows on many machines, with Apache Beam."""

import collections
import contextlib
import dataclasses
import difflib
import io
import os
import pathlib

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict import shards
from keras_bridgetower.apps.predict.rows import open_rows
from keras_bridgetower.apps.predict.verbs import VERBS
from keras_bridgetower.apps.predict.verbs import check_settings
from keras_bridgetower.apps.predict.verbs import open_task
from keras_bridgetower.checks import check_count
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import one_writer

# What `DirectRunner` ends up with. Before that it would try to download
# another runner, which knows nothing of its options for workers.
_DIRECT = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class BeamReport:
    """What a run on many machines did.

    Args:
        rows: int, rows of the source.
        bad: int, those that could not be read.
        shards: int, files of results.
        kept: int, those that stood already.
        passed_over: `Counter` of what of a folder was left out.
        metrics: the metrics of the pipeline, as its runner gives them; None
            if it did not run, or gives none.
    """

    rows: int
    bad: int
    shards: int
    kept: int
    passed_over: collections.Counter
    metrics: object = None


def run(
    preset,
    task,
    source,
    out,
    text=(),
    top_k=1,
    batch_size=32,
    outside=False,
    pictures=None,
    shard_rows=2000,
    runner="DirectRunner",
    options=(),
):
    """Run a task of a preset over a folder or a table, on a runner of Beam.

    The rows are divided into shards. A worker takes a shard, runs the task,
    and writes a Parquet file in `OUT/predictions`, and a JSONL file of the
    rows with errors in `OUT/errors`. The same call makes the shards that are
    missing, so it goes on after an interruption.

    Args:
        preset, task, source, text, top_k, batch_size, outside: as `main.run`.
        out: str, path of a folder or address such as `"gs://bucket/run"`, which
            all machines can write.
        pictures: str, the folder of the pictures as the workers see it. By
            default that of the source.
        shard_rows: int, rows of a shard.
        runner: str, name of a runner of Beam.
        options: list of str, `"KEY=VALUE"`, options of the pipeline.

    Returns:
        `BeamReport`.

    Raises:
        ImportError: Apache Beam is not installed.
        ValueError: a source, preset, folder or option that does not fit.
        RuntimeError: the pipeline failed.

    Source: Apache Beam, `RunInference`.
    """
    check_count("top_k", top_k)
    check_count("batch_size", batch_size)
    check_count("shard_rows", shard_rows)
    settings = _settings(runner, options)
    out = _full(out)
    verb = VERBS[task]
    rows = open_rows(source, verb.columns, verb.optional, text, outside, out)
    preset = os.fspath(preset)
    model = open_task(task, preset)
    check_settings(model, task, text, top_k)
    header = output.header_of(model, task, rows, top_k)
    header["shard_rows"] = shard_rows
    folder = pathlib.Path(source)
    folder = folder if folder.is_dir() else folder.parent
    with _alone(out):
        shards.begin(out, header)
        shards.clear(out)
        done, missing = shards.standing(out), []
        for shard, some in shards.divide(
            rows, shard_rows, out, _full(pictures or folder)
        ):
            if shard.name not in done:
                shard.write_rows(some)
                missing.append(shard)
        metrics = None
        if missing:
            values = (preset, task, top_k, batch_size, header["model"])
            metrics = _run(missing, values, settings)
            lost = {s.name for s in missing} - shards.standing(out)
            if lost:
                raise RuntimeError(
                    f"The pipeline ended without {len(lost)} of "
                    f"{len(missing)} shards. Run the same command again: it "
                    "makes those that are missing."
                )
        shards.clear(out)
        return BeamReport(
            rows=rows.count,
            bad=shards.count_errors(out),
            shards=-(-rows.count // shard_rows),
            kept=len(done),
            passed_over=+rows.passed_over,
            metrics=metrics,
        )


def _run(missing, values, settings):
    """Run a pipeline that makes some shards, and return its metrics."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import KeyedModelHandler
    from apache_beam.ml.inference.base import RunInference

    from keras_bridgetower.apps.predict.model_handler import (
        BridgeTowerModelHandler,
    )

    preset, task, top_k, batch_size, model_sum = values
    handler = BridgeTowerModelHandler(
        preset, task, top_k, batch_size, model_sum
    )
    pipeline = beam.Pipeline(options=settings)
    (
        pipeline
        | "Shards" >> beam.Create(missing)
        # Without this step, one machine would take all shards.
        | "Divide" >> beam.Reshuffle()
        | "Rows" >> beam.Map(with_rows)
        | "Predict" >> RunInference(KeyedModelHandler(handler))
        # In the same step as the model, so each shard is written at once.
        | "Write" >> beam.Map(write, name=task)
    )
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(
            f"The pipeline failed: {said[-1]:.500}. Shards that are written "
            "stay: run the same command again once this is mended."
        ) from error
    with contextlib.suppress(Exception):
        return result.metrics().query()


def with_rows(shard):
    """A shard and its rows."""
    return shard, shard.rows()


def write(made, name):
    """Write a shard and its results."""
    shard, results = made
    shard.write_results(results, name)


def _settings(runner, options):
    """Options of the pipeline, checked before anything is read.

    Raises:
        ImportError: Apache Beam is not installed.
        ValueError: an unknown runner or option.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.options.pipeline_options import StandardOptions
    except ImportError as error:
        raise ImportError(shards.INSTALL) from error
    runners = StandardOptions.KNOWN_RUNNER_NAMES
    if runner not in runners and "." not in runner:
        raise ValueError(
            f"The runner must be one of {', '.join(runners)}, or the full name "
            f"of a class. Received: {runner!r}"
        )
    known = PipelineOptions([]).get_all_options()
    for option in options:
        key, equals, _ = option.partition("=")
        if not equals or key not in known:
            near = difflib.get_close_matches(key, known, 3)
            raise ValueError(
                "An option of the pipeline must be KEY=VALUE, with a KEY that "
                "Apache Beam knows"
                + (f", such as {' or '.join(near)}" if near else "")
                + f". Received: {option!r}"
            )
    runner = _DIRECT if runner == "DirectRunner" else runner
    flags = [f"--{option}" for option in options]
    settings = PipelineOptions([f"--runner={runner}", *flags])
    try:
        # Values are read here; argparse would print its usage.
        with contextlib.redirect_stderr(io.StringIO()):
            settings.get_all_options()
        return settings
    except SystemExit as error:
        raise ValueError(
            "An option of the pipeline must have a value that Apache Beam "
            f"takes. Received: {', '.join(options)}"
        ) from error


def _full(path):
    """An address as it is, and the full path of a folder."""
    path = os.fspath(path)
    if "://" in path:
        return path
    return pathlib.Path(os.path.abspath(path)).as_posix()


@contextlib.contextmanager
def _alone(out):
    """A context in which this process alone writes, if OUT is a folder."""
    if "://" in out:
        yield
        return
    if os.path.exists(out) and not os.path.isdir(out):
        raise ValueError(
            f"OUT must be a folder with `--runner`. Received: the file {out!r}"
        )
    output.check_folder(out)
    check_no_link(out, "OUT")
    with one_writer(
        f"{out}.lock",
        "OUT must be written by one process at a time. Wait for the other "
        f"one, or write to another folder. Received: {out!r}",
    ):
        yield
