"""Runs a task on two workers of Apache Beam; called by test_predict_beam.py.

    python beam_run.py TABLE OUT

A process of its own, so that a test can kill it together with its workers.
"""

import sys

from keras_bridgetower.apps.predict import on_beam

TWO_WORKERS = ("direct_num_workers=2", "direct_running_mode=multi_processing")

if __name__ == "__main__":
    on_beam.run(
        *("bridgetower_tiny_easy_vqa", "vqa", *sys.argv[1:]),
        top_k=2,
        shard_rows=100,
        options=TWO_WORKERS,
    )
