"""Writes the shards of a data set on a cluster, with Apache Beam."""

import json
import pathlib
import tempfile

from keras_bridgetower.data.records.write import write_shard

_INSTALL = (
    "Writing on a cluster needs Apache Beam: `pip install apache-beam`, or "
    "install keras-bridgetower with its extra `beam`."
)


def on_beam(runner="DirectRunner", **options):
    """Make a function that writes shards by a pipeline of Apache Beam.

    Each shard is written by `write_shard`. The folder of the data set and the
    pictures must have the same paths on all machines.

    Args:
        runner: str, the name of a Beam runner.
        **options: options of the pipeline, as `PipelineOptions` takes them.

    Returns:
        function, for the argument `run` of `write_shards`.

    Raises:
        ImportError: Beam is not installed.

    Source: Apache Beam, programming guide.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(_INSTALL) from error

    def run(jobs):
        if not jobs:
            return
        # Workers return their parts of the index through files.
        folder = pathlib.Path(jobs[0].path).parent
        with tempfile.TemporaryDirectory(prefix=".beam-", dir=folder) as rows:
            settings = PipelineOptions(runner=runner, **options)
            with beam.Pipeline(options=settings) as pipeline:
                (
                    pipeline
                    | beam.Create(jobs)
                    # Without this step, one machine would write all shards.
                    | beam.Reshuffle()
                    | beam.Map(write_shard)
                    | beam.Map(json.dumps)
                    | beam.io.WriteToText(f"{rows}/rows")
                )
            for path in sorted(pathlib.Path(rows).glob("rows*")):
                for line in path.read_text(encoding="utf-8").splitlines():
                    yield json.loads(line)

    return run
