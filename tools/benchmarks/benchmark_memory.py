"""Measure a training step with and without recomputed activations.

Called by `benchmark.py --what memory`; a process measures once and prints its
numbers as JSON.
"""

import json
import sys
import time

import benchmark_loading
import benchmark_pretraining
import keras

BATCH, TOKENS = 4, 50


def run(size, repeats):
    """Print the table for one model of random weights."""
    kept, again = (
        benchmark_loading.in_process(__file__, way, json.dumps(size), repeats)
        for way in ("keep", "again")
    )
    print(
        "| backend | width | image | batch | activations kept | computed again "
        "| memory | time |\n|---|---|---|---|---|---|---|---|\n"
        f"| {keras.config.backend()} | {size['hidden']} | {size['side']} px | "
        f"{BATCH} | {kept['bytes'] / 1e9:.2f} GB, {kept['seconds']:.1f} s | "
        f"{again['bytes'] / 1e9:.2f} GB, {again['seconds']:.1f} s | "
        f"{again['bytes'] / kept['bytes']:.2f} x | "
        f"{again['seconds'] / kept['seconds']:.2f} x |"
    )


def measured(way, size, repeats):
    """Peak above what stood in memory before the first step, and seconds."""
    backbone = benchmark_pretraining.backbone(size)
    if way == "again":
        backbone.checkpoint_activations()
    task = benchmark_pretraining.kbt.BridgeTowerPretraining(
        backbone, objectives=benchmark_pretraining.OBJECTIVES
    )
    # Without momentum: the optimizer's own memory is not the question.
    task.compile(keras.optimizers.SGD(1e-4))
    tokens = size.get("tokens", TOKENS)
    batch = benchmark_pretraining.batch(size, BATCH, tokens)
    before = benchmark_loading.Peak.resident()
    task.train_on_batch(*batch)  # Traces and compiles.
    peak = benchmark_loading.Peak()
    peak.start()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        task.train_on_batch(*batch)
        seconds.append(time.perf_counter() - started)
    peak.done = True
    return {"bytes": peak.largest - before, "seconds": min(seconds)}


if __name__ == "__main__":
    way, size, repeats = sys.argv[1:]
    print(json.dumps(measured(way, json.loads(size), int(repeats))))
