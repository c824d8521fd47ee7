"""Writing shards on Apache Beam, for data sets that outgrow one machine."""

import json
import pathlib
import tempfile

from keras_bridgetower.data.records.write import write_shard

_INSTALL = (
    "Writing on a cluster needs Apache Beam: `pip install apache-beam`, or "
    "install keras-bridgetower with its extra `beam`."
)


def on_beam(runner="DirectRunner", **options):
    """Write shards by a Beam pipeline, each as `write_shard` does here.

    The folder of the data set and the pictures must have the same paths on
    all machines.

    Args:
        runner: str, the name of a runner.
        **options: of the pipeline, as `beam.options.PipelineOptions`.

    Returns:
        function for `run` of `write_shards`.

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
        # Machines hand their rows of the index back through files.
        folder = pathlib.Path(jobs[0].path).parent
        with tempfile.TemporaryDirectory(prefix=".beam-", dir=folder) as rows:
            settings = PipelineOptions(runner=runner, **options)
            with beam.Pipeline(options=settings) as pipeline:
                (
                    pipeline
                    | beam.Create(jobs)
                    # Otherwise one machine would be given all of them.
                    | beam.Reshuffle()
                    | beam.Map(write_shard)
                    | beam.Map(json.dumps)
                    | beam.io.WriteToText(f"{rows}/rows")
                )
            for path in sorted(pathlib.Path(rows).glob("rows*")):
                for line in path.read_text(encoding="utf-8").splitlines():
                    yield json.loads(line)

    return run
