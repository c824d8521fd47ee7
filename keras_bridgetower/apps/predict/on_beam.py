"""Runs a verb over millions of rows on many machines, by Apache Beam."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import os
import pathlib
import uuid

from keras_bridgetower.apps.predict import output
from keras_bridgetower.apps.predict.batches import read
from keras_bridgetower.apps.predict.batches import run_rows
from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.rows import Row
from keras_bridgetower.apps.predict.run import open_run
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import parse_json
from keras_bridgetower.presets.verbs import named
from keras_bridgetower.tasks import by_name
from keras_bridgetower.tasks.identity import model_checksum

try:
    import apache_beam as beam
    import pyarrow
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.ml.inference.base import KeyedModelHandler
    from apache_beam.ml.inference.base import ModelHandler
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from pyarrow import parquet
except ImportError as error:
    raise ImportError(
        "Apache Beam is needed and not installed: "
        "`pip install 'keras-bridgetower[beam]'`"
    ) from error

# `DirectRunner` would first try to download another runner, which does not
# know the options of this one for workers.
_DIRECT = "FnApiRunner"


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
        As `run.run`.

    Raises:
        ValueError: a source, preset, folder or option of the wrong kind.
        RuntimeError: the pipeline failed.

    Source: Apache Beam, `RunInference`.
    """
    settings = _settings(runner, options)
    out = _full(out)
    preset = os.fspath(preset)
    model, verb, rows = open_run(preset, task, source, text, top_k, outside)
    header = output.make_header(model, verb, rows, top_k)
    header["shard_rows"] = shard_rows
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    pictures = _full(pictures or folder)
    # Storage at an address has no locks.
    lock = contextlib.nullcontext() if "://" in out else output.locked(out)
    with lock:
        begin(out, header)
        done, missing, waiting = finished(out), [], iter(rows)
        count = -(-rows.count // shard_rows)
        for number in range(count):
            shard = Shard(out, pictures, number, count)
            some = list(itertools.islice(waiting, shard_rows))
            if shard.name not in done:
                shard.write_rows(some)
                missing.append(shard)
        if missing:
            model_args = (preset, task, top_k, batch_size, header["model"])
            _run(missing, verb, model_args, settings)
            lost = {s.name for s in missing} - finished(out)
            if lost:
                raise RuntimeError(
                    f"The pipeline ended without {len(lost)} of "
                    f"{len(missing)} shards. Run the same command again."
                )
        clear(out)
        return count_errors(out), +rows.passed_over


def _run(missing, verb, model_args, settings):
    """Run a pipeline that computes some shards."""
    handler = _ModelHandler(*model_args)
    pipeline = beam.Pipeline(options=settings)
    (
        pipeline
        | "Shards" >> beam.Create(missing)
        # Otherwise one machine would take all shards.
        | "Divide" >> beam.Reshuffle()
        | "Rows" >> beam.Map(lambda shard: (shard, shard.rows()))
        | "Predict" >> RunInference(KeyedModelHandler(handler))
        # In the same step as the model, so each shard is written at once.
        | "Write"
        >> beam.MapTuple(lambda shard, made: shard.write_results(made, verb))
    )
    pipeline.run().wait_until_finish()


class _ModelHandler(ModelHandler):
    """Run a verb on lists of `Row`, and return lists of results.

    `RunInference` loads the model once in each process of a worker.

    Args:
        preset, task, top_k, batch_size: as in `run`.
        model_sum: str, `model_checksum` of the task. A worker whose preset
            differs fails.
    """

    def __init__(self, preset, task, top_k, batch_size, model_sum):
        super().__init__()
        self._preset, self._task = preset, task
        self._top_k, self._batch_size = top_k, batch_size
        self._model_sum = model_sum

    def load_model(self):
        task = by_name.open_verb(self._preset, self._task)
        if model_checksum(task) != self._model_sum:
            raise ValueError(
                "`preset` must have the same weights on all machines. "
                f"Received: preset={self._preset!r}, which differs on this one"
            )
        return task

    def run_inference(self, batch, model, inference_args=None):
        _, verb = by_name.verbs()[self._task]
        for element in batch:
            results = run_rows(
                model, verb, element, self._top_k, self._batch_size
            )
            yield [result for some in results for result in some]

    def batch_elements_kwargs(self):
        """Pass one element at a time: it has many rows."""
        return {"min_batch_size": 1, "max_batch_size": 1}


def _settings(runner, options):
    """Return the options of the pipeline. Beam itself ignores unknown ones."""
    known = PipelineOptions([]).get_all_options()
    for option in options:
        if option.partition("=")[0] not in known:
            near = difflib.get_close_matches(option, known, 3)
            raise ValueError(
                "An option of the pipeline must be KEY=VALUE, such as "
                f"{near}. Received: {option!r}"
            )
    runner = _DIRECT if runner == "DirectRunner" else runner
    flags = [f"--{option}" for option in options]
    return PipelineOptions([f"--runner={runner}", *flags])


def _full(path):
    path = os.fspath(path)
    if "://" in path:
        return path.rstrip("/")
    return pathlib.Path(os.path.abspath(path)).as_posix()


HEADER = "predictions.json"
ROWS, RESULTS, ERRORS = "rows", "predictions", "errors"


@dataclasses.dataclass(frozen=True, order=True)
class Shard:
    """Consecutive rows whose results are one file.

    Args:
        out: str, folder of the run.
        pictures: str, address of the folder of the pictures.
        number: int from 0.
        count: int, number of shards.
    """

    out: str
    pictures: str
    number: int
    count: int

    @property
    def name(self):
        return f"{self.number:05}-of-{self.count:05}"

    def path(self, kind):
        """Return the path of its rows, results or errors."""
        suffix = "parquet" if kind == RESULTS else "jsonl"
        return f"{self.out}/{kind}/{self.name}.{suffix}"

    def write_rows(self, rows):
        lines = [[row.number, row.values, row.error] for row in rows]
        write(self.path(ROWS), output.json_lines(lines))

    def rows(self):
        lines = read(self.path(ROWS)).splitlines()
        return [
            Row(number, values, self.pictures, error)
            for number, values, error in map(parse_json, lines)
        ]

    def write_results(self, results, verb):
        """Write errors, then results, whose file marks the shard as done."""
        good = [result for result in results if "error" not in result]
        bad = [result for result in results if "error" in result]
        write(self.path(ERRORS), output.json_lines(bad))
        write(self.path(RESULTS), to_parquet(good, verb))


def begin(out, header):
    """Create the folder of a run, or check the header of one that was begun."""
    path = f"{out}/{HEADER}"
    if FileSystems.exists(path):
        output.check_header(read(path), header, out)
        return
    if names(out):
        raise ValueError(
            "OUT must be a new or empty folder, or one that this command has "
            f"begun, with a {HEADER}. Received: {out!r}, which holds other "
            "files"
        )
    write(path, json.dumps({"predictions": header}).encode())


def finished(out):
    """Return the names of the finished shards, a set."""
    found = names(f"{out}/{RESULTS}")
    return {n.removesuffix(".parquet") for n in found if n[0] != "_"}


def count_errors(out):
    """Count the rows with errors in all shards."""
    folder = f"{out}/{ERRORS}"
    paths = [f"{folder}/{name}" for name in names(folder) if name[0] != "_"]
    return sum(read(path).count(b"\n") for path in paths)


def clear(out):
    """Remove the rows for the workers, and unfinished files."""
    paths = [
        f"{out}/{kind}/{name}"
        for kind in (ROWS, RESULTS, ERRORS)
        for name in names(f"{out}/{kind}")
        if kind == ROWS or name[0] == "_"
    ]
    if paths:
        FileSystems.delete(paths)


def to_parquet(results, verb):
    """Convert results of `run_rows` without errors to a Parquet file, bytes.

    The columns are `row`, `id` (a string; other values as JSON), the inputs of
    the verb, its results, and `known` if the task returns it.
    """
    texts = (ID, *verb.columns)
    kinds = verb.results.items()
    fields = [("row", pyarrow.int64())]
    fields += [(column, pyarrow.string()) for column in texts]
    fields += [(column, _arrow_type(kind)) for column, kind in kinds]
    if any("known" in result for result in results):
        fields.append(("known", pyarrow.bool_()))
    rows = [
        result
        | {column: _text(result.get(column)) for column in texts}
        | {column: named(kind, result[column]) for column, kind in kinds}
        for result in results
    ]
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema(fields))
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def _arrow_type(kind):
    """Return the Arrow type of a kind of `Verb.results`."""
    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(kind[0]))
    if isinstance(kind, tuple):
        text, number = kind
        pair = [(text, pyarrow.string()), (number, pyarrow.float64())]
        return pyarrow.list_(pyarrow.struct(pair))
    return {
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
        float: pyarrow.float64(),
        list: pyarrow.list_(pyarrow.float32()),
    }[kind]


def _text(value):
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def names(folder):
    """List the files of a folder; none if it does not exist."""
    try:
        if "://" not in folder:
            return sorted(os.listdir(folder))
        (found,) = FileSystems.match([f"{folder}/*"])
    except OSError:
        return []
    return sorted(data.path.rsplit("/", 1)[1] for data in found.metadata_list)


def write(path, data):
    """Write a file as a whole or not at all."""
    folder, name = path.rsplit("/", 1)
    # Two workers may write the same file, each under its own name.
    part = f"{folder}/_{uuid.uuid4().hex}-{name}"
    with FileSystems.create(part, compression_type="uncompressed") as file:
        file.write(data)
    if os.path.exists(part):
        move_into_place(part, path)
    else:
        # At an address the file is complete once it is closed.
        FileSystems.rename([part], [path])
