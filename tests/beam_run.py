"""Runs a task on two workers of Apache Beam; called by test_predict_beam.py.

    python beam_run.py TABLE OUT TASK SHARD_ROWS

Prints the report, and how often a model was loaded, as JSON. It is a process
of its own, so that a test can kill it together with its workers.
"""

import dataclasses
import json
import sys

from keras_bridgetower.apps.predict import on_beam

PRESETS = {
    "vqa": "bridgetower_tiny_easy_vqa",
    "retrieval": "bridgetower_tiny_easy_retrieval",
    "embed_images": "bridgetower_tiny_easy_contrastive",
}
TWO_WORKERS = ("direct_num_workers=2", "direct_running_mode=multi_processing")


def main():
    table, out, task, shard_rows = sys.argv[1:]
    report = on_beam.run(
        PRESETS[task],
        task,
        table,
        out,
        top_k=2 if task == "vqa" else 1,
        shard_rows=int(shard_rows),
        options=TWO_WORKERS,
    )
    loads = [
        found.result.count
        for found in (report.metrics or {}).get("distributions", ())
        if found.key.metric.name == "load_model_latency_milli_secs"
    ]
    said = dataclasses.asdict(dataclasses.replace(report, metrics=None))
    print(json.dumps({**said, "loads": sum(loads)}))


if __name__ == "__main__":
    main()
