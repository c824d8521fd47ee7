"""Time from a foreign folder to the first output: PyTorch files, safetensors.

Called by `benchmark.py --what conversion`; a process converts once, with a
cache of its own, and prints its numbers as JSON.
"""

import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import peer
import torch
from benchmark_loading import Peak
from benchmark_loading import in_process

import keras  # isort: skip


def run(size, repeats):
    """Print the table for a random model of transformers."""
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        write(size, home)
        text = json.dumps(size)
        runs = {"safetensors": [], "torch.save": []}
        for _ in range(repeats):
            for kind, found in runs.items():
                with tempfile.TemporaryDirectory(dir=home) as cache:
                    environment = {**os.environ, "KERAS_HOME": cache}
                    found.append(
                        in_process(
                            __file__,
                            home / kind,
                            text,
                            environment=environment,
                        )
                    )
    print("| backend | weights | first output | processor | peak memory |")
    print("|---|---|---|---|---|")
    for kind, found in runs.items():
        seconds, processor, peak = (
            statistics.median(one[key] for one in found)
            for key in ("seconds", "processor", "peak")
        )
        print(
            f"| {keras.config.backend()} | {kind} | {seconds:.1f} s | "
            f"{processor:.1f} s | {peak / 1e9:.2f} GB |"
        )


def write(size, home):
    """One model in both formats."""
    model = peer.peer(size)
    model.save_pretrained(home / "safetensors")
    model.config.save_pretrained(home / "torch.save")
    torch.save(model.state_dict(), home / "torch.save" / "pytorch_model.bin")


def measure(folder, size):
    """Convert, load and run, in this process."""
    import keras_bridgetower as kbt

    # One picture and one text.
    features, _ = peer.inputs(size, batch=1, tokens=32)
    peak = Peak()
    peak.start()
    started, processor = time.perf_counter(), time.process_time()
    backbone = kbt.BridgeTowerBackbone.from_preset(folder)
    backbone.predict_on_batch(features)
    seconds = time.perf_counter() - started
    peak.done = True
    return {
        "seconds": seconds,
        "processor": time.process_time() - processor,
        "peak": peak.above(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
