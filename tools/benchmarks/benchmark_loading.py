"""Measure time and memory from `from_preset` to the first output.

Called by `benchmark.py --what loading`; a process measures once and prints
its numbers as JSON.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import peer
import torch

import keras  # isort: skip


def run(size, repeats):
    """Print the table for a random model of transformers."""
    with tempfile.TemporaryDirectory() as home:
        folder = pathlib.Path(home) / "theirs"
        peer.peer(size).save_pretrained(folder)
        environment = {**os.environ, "KERAS_HOME": home}
        text = json.dumps(size)
        measure("ours", folder, text, environment)  # Converts it.
        runs = {"ours": [], "transformers": [], "read": []}
        for _ in range(repeats):
            for kind, found in runs.items():
                found.append(measure(kind, folder, text, environment))
    median = {
        kind: {
            key: statistics.median(one[key] for one in found)
            for key in found[0]
        }
        for kind, found in runs.items()
    }
    ours, theirs, read = median.values()
    print(
        "| backend | first output | transformers | ratio | weights / plain "
        "read | peak memory / weights | transformers' |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| {keras.config.backend()} | {ours['seconds']:.1f} s | "
        f"{theirs['seconds']:.1f} s | "
        f"{theirs['seconds'] / ours['seconds']:.2f} x | "
        f"{ours['weights'] / read['seconds']:.2f} | {ours['peak']:.2f} | "
        f"{theirs['peak']:.2f} |"
    )


def measure(kind, folder, size, environment):
    return in_process(__file__, kind, folder, size, environment=environment)


def in_process(script, *arguments, environment=os.environ):
    """What a script prints last, as JSON, in a process of its own."""
    output = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


class Peak(threading.Thread):
    """The largest resident memory above that at the start, in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.start_bytes = self.largest = self.resident()
        self.done = False

    @staticmethod
    def resident():
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def run(self):
        while not self.done:
            self.largest = max(self.largest, self.resident())
            time.sleep(0.005)

    def above(self):
        return self.largest - self.start_bytes


def ours(folder, inputs):
    import keras_bridgetower as kbt
    from keras_bridgetower.presets import registry

    spent = []

    def timed(function):
        def call(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - started)

        return call

    # All that is neither graph building nor compilation.
    registry.open_preset = timed(registry.open_preset)
    registry.load_backbone = timed(registry.load_backbone)
    features = inputs[0]
    peak = Peak()
    peak.start()
    started = time.perf_counter()
    backbone = kbt.BridgeTowerBackbone.from_preset(folder)
    loaded = peak.above()
    backbone.predict_on_batch(features)
    seconds = time.perf_counter() - started
    peak.done = True
    size = weight_file(folder).stat().st_size
    return {
        "seconds": seconds,
        "weights": sum(spent[:2]),
        "peak": loaded / size,
    }


def weight_file(folder):
    """The weights of the converted preset."""
    from keras_bridgetower.presets import registry

    return pathlib.Path(registry.resolve(folder)) / "model.weights.h5"


def read(folder, inputs):
    """A plain read of that file, in a process of its own like the others."""
    path = weight_file(folder)
    started = time.perf_counter()
    path.read_bytes()
    return {"seconds": time.perf_counter() - started}


def transformers(folder, inputs):
    from transformers import BridgeTowerModel

    features = inputs[1]
    peak = Peak()
    peak.start()
    started = time.perf_counter()
    model = BridgeTowerModel.from_pretrained(folder).eval()
    loaded = peak.above()
    with torch.inference_mode():
        model(**features)
    seconds = time.perf_counter() - started
    peak.done = True
    size = (pathlib.Path(folder) / "model.safetensors").stat().st_size
    return {"seconds": seconds, "peak": loaded / size}


if __name__ == "__main__":
    kind, folder, size = sys.argv[1:]
    # One picture and one text.
    inputs = peer.inputs(json.loads(size), batch=1, tokens=32)
    run_one = {"ours": ours, "transformers": transformers, "read": read}[kind]
    print(json.dumps(run_one(folder, inputs)))
