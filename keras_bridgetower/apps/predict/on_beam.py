"""Runs a verb over millions of rows on many machines, by Apache Beam."""

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
from keras_bridgetower.apps.predict.run import check_request
from keras_bridgetower.apps.predict.run import verb_named
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import load_extra
from keras_bridgetower.tasks import by_name

# `DirectRunner` ends up with it, but would first try to download another
# runner, which does not know its options for workers.
_DIRECT = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class BeamReport:
    """Report of a run on many machines.

    Args:
        rows: int, rows of the source.
        bad: int, those that could not be read.
        shards: int, files of results.
        kept: int, files that existed already.
        passed_over: `Counter` of skipped files of a folder.
        metrics: the metrics of the pipeline, as its runner returns them, or
            None.
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
    """Run a verb of a preset over a folder or a table, on a runner of Beam.

    The rows are divided into shards. A worker takes a shard, runs the task,
    and writes a Parquet file in `OUT/predictions`, and a JSONL file of the
    rows with errors in `OUT/errors`. After an interruption, the same call
    computes the missing shards.

    Args:
        preset, task, source, text, top_k, batch_size, outside: as in
            `run.run`.
        out: str, path of a folder or address such as `"gs://bucket/run"` to
            which all machines can write.
        pictures: str, the folder of the pictures as the workers see it. By
            default that of the source.
        shard_rows: int, rows per shard.
        runner: str, name of a runner of Beam.
        options: list of str, `"KEY=VALUE"`, options of the pipeline.

    Returns:
        `BeamReport`.

    Raises:
        ImportError: Apache Beam is not installed.
        ValueError: a source, preset, folder or option of the wrong kind.
        RuntimeError: the pipeline failed.

    Source: Apache Beam, `RunInference`.
    """
    check_count("top_k", top_k)
    check_count("batch_size", batch_size)
    check_count("shard_rows", shard_rows)
    settings = _settings(runner, options)
    out = _full(out)
    verb = verb_named(task)
    rows = open_rows(
        source, tuple(verb.inputs), tuple(verb.optional), text, outside, out
    )
    preset = os.fspath(preset)
    model = by_name.open_verb(preset, task)
    check_request(model, text, top_k)
    header = output.make_header(model, verb, rows, top_k)
    header["shard_rows"] = shard_rows
    folder = pathlib.Path(source)
    folder = folder if folder.is_dir() else folder.parent
    # Storage at an address has no locks.
    lock = contextlib.nullcontext() if "://" in out else output.locked(out)
    with lock:
        shards.begin(out, header)
        shards.clear(out)
        done, missing = shards.finished(out), []
        for shard, some in shards.divide(
            rows, shard_rows, out, _full(pictures or folder)
        ):
            if shard.name not in done:
                shard.write_rows(some)
                missing.append(shard)
        metrics = None
        if missing:
            values = (preset, verb, top_k, batch_size, header["model"])
            metrics = _run(missing, values, settings)
            lost = {s.name for s in missing} - shards.finished(out)
            if lost:
                raise RuntimeError(
                    f"The pipeline ended without {len(lost)} of "
                    f"{len(missing)} shards. Run the same command again to "
                    "compute the missing ones."
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
    """Run a pipeline that computes some shards, and return its metrics."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import KeyedModelHandler
    from apache_beam.ml.inference.base import RunInference

    from keras_bridgetower.apps.predict.model_handler import (
        BridgeTowerModelHandler,
    )

    preset, verb, top_k, batch_size, model_sum = values
    handler = BridgeTowerModelHandler(
        preset, verb.name, top_k, batch_size, model_sum
    )
    pipeline = beam.Pipeline(options=settings)
    (
        pipeline
        | "Shards" >> beam.Create(missing)
        # Otherwise one machine would take all shards.
        | "Divide" >> beam.Reshuffle()
        | "Rows" >> beam.Map(with_rows)
        | "Predict" >> RunInference(KeyedModelHandler(handler))
        # In the same step as the model, so each shard is written at once.
        | "Write" >> beam.Map(write, verb=verb)
    )
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(
            f"The pipeline failed: {lines[-1]:.500}. Shards that are written "
            "are kept: run the same command again once this is fixed."
        ) from error
    with contextlib.suppress(Exception):
        return result.metrics().query()


def with_rows(shard):
    """Return a shard and its rows."""
    return shard, shard.rows()


def write(predicted, verb):
    """Write the results of a shard."""
    shard, results = predicted
    shard.write_results(results, verb)


def _settings(runner, options):
    """Check the options of the pipeline, before anything is read.

    Raises:
        ImportError: Apache Beam is not installed.
        ValueError: an unknown runner or option.
    """
    beam = load_extra("apache_beam.options.pipeline_options", "beam")
    runners = beam.StandardOptions.KNOWN_RUNNER_NAMES
    if runner not in runners and "." not in runner:
        raise ValueError(
            f"The runner must be one of {', '.join(runners)}, or the full name "
            f"of a class. Received: {runner!r}"
        )
    known = beam.PipelineOptions([]).get_all_options()
    for option in options:
        key, equals, _ = option.partition("=")
        if not equals or key not in known:
            near = difflib.get_close_matches(key, known, 3)
            raise ValueError(
                "An option of the pipeline must be KEY=VALUE, with a KEY that "
                f"Apache Beam knows, such as {near}. Received: {option!r}"
            )
    runner = _DIRECT if runner == "DirectRunner" else runner
    flags = [f"--{option}" for option in options]
    settings = beam.PipelineOptions([f"--runner={runner}", *flags])
    try:
        # Reads the values; argparse would print its usage.
        with contextlib.redirect_stderr(io.StringIO()):
            settings.get_all_options()
        return settings
    except SystemExit as error:
        raise ValueError(
            "An option of the pipeline must have a value that Apache Beam "
            f"takes. Received: {', '.join(options)}"
        ) from error


def _full(path):
    """Return an address unchanged, and a folder as an absolute path."""
    path = os.fspath(path)
    if "://" in path:
        return path
    return pathlib.Path(os.path.abspath(path)).as_posix()
