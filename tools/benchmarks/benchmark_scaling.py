"""Time steps of 1 to 8 processes on this machine, and count what they send.

    export KERAS_BACKEND=torch
    python tools/benchmarks/benchmark_scaling.py runs/scaling

A process has one thread. Strong: all processes share one batch; weak: each has
its own. Communication is the time above that of as many independent processes
with the same rows. The bytes on the loopback device are compared with the
plan's formula. Writes scaling.csv and scaling.png.
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import keras_hub
import launch
import numpy as np
from turns import report

import keras_bridgetower as kbt
from keras_bridgetower.training import planning

ROWS, TOKENS, SIDE, WARM, STEPS = 16, 16, 64, 3, 8
MODES = ("strong", "weak")
KINDS, COUNTS = ("data_parallel", "fsdp"), (1, 2, 4, 8)
LOOPBACK = pathlib.Path("/sys/class/net/lo/statistics/tx_bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--processes", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--work", nargs=2, help="kind and rows of a process")
    settings = parser.parse_args()
    if settings.work:
        kind, rows = settings.work
        work(kind, int(rows), settings.folder)
        return
    settings.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for kind in settings.kinds:
        for mode in MODES:
            rows = [
                measured(settings.folder, kind, mode, count)
                for count in settings.processes
            ]
            first = rows[0]["seconds"]
            found += [r | {"slowdown": r["seconds"] / first} for r in rows]
    report.write_csv(settings.folder / "scaling.csv", found)
    modes = [[row for row in found if row["mode"] == mode] for mode in MODES]
    panels = [(rows, "processes", "slowdown", "kind") for rows in modes]
    report.curves(settings.folder / "scaling.png", *panels)


def measured(folder, kind, mode, count):
    """Return the times and bytes of a step of so many processes."""
    rows = ROWS // count if mode == "strong" else ROWS
    together = started(folder, kind, rows, launch.several_processes(count))
    alone = started(folder, "none", rows, [{}] * count)
    found = {
        "kind": kind,
        "mode": mode,
        "processes": count,
        "seconds": together["seconds"],
        "communication": max(0, 1 - alone["seconds"] / together["seconds"]),
        "sent": together["bytes"] / count / 1e6,
        "planned": together["planned"] / 1e6,
    }
    found = {
        k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()
    }
    print(found, flush=True)
    return found


def started(folder, kind, rows, environments):
    """Run processes; return what the first one measured."""
    places = [folder / f"{i}.json" for i in range(len(environments))]
    commands = [[__file__, place, "--work", kind, rows] for place in places]
    processes = launch.started(commands, environments)
    launch.codes(processes)
    return json.loads(places[0].read_text())


class Timed(keras.callbacks.Callback):
    """Reads the clock and the loopback device after the first steps.

    Attributes:
        found: dict of the seconds and the bytes of a step.
    """

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM - 1:
            self._before = time.perf_counter(), sent()
        if batch == WARM + STEPS - 1:
            now = time.perf_counter(), sent()
            seconds, size = (
                (b - a) / STEPS for a, b in zip(self._before, now, strict=True)
            )
            self.found = {"seconds": seconds, "bytes": size}


def sent():
    return int(LOOPBACK.read_text())


def work(kind, rows, place):
    """Train for some steps, and write what a step takes."""
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    strategy = kbt.distribute(kind)
    with strategy.scope():
        task = made()
        task.compile(keras.optimizers.SGD(1e-3))
    count = strategy.processes
    x, y = batch(rows * count)
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    timed = Timed()
    task.fit(
        strategy.dataset(data),
        steps_per_epoch=WARM + STEPS,
        verbose=0,
        callbacks=[timed],
    )
    planned = planning.sent_bytes(kind, task, count, accumulation=1)
    place.write_text(json.dumps(timed.found | {"planned": planned}))


def made():
    """Return a task with random weights."""
    sizes = {"hidden_dim": 256, "num_layers": 4, "num_heads": 4}
    image = keras_hub.models.CLIPVisionEncoder(
        patch_size=16,
        intermediate_dim=1024,
        image_shape=(SIDE, SIDE, 3),
        **sizes,
    )
    text = keras_hub.models.RobertaBackbone(
        vocabulary_size=8000,
        intermediate_dim=1024,
        max_sequence_length=64,
        **sizes,
    )
    backbone = kbt.BridgeTowerBackbone(image, text, **sizes, dropout=0.0)
    return kbt.BridgeTowerVQA(backbone, answers=[f"{i}" for i in range(100)])


def batch(rows):
    rng = np.random.default_rng(0)
    x = {
        "images": rng.normal(size=(rows, SIDE, SIDE, 3)).astype("float32"),
        "token_ids": rng.integers(5, 8000, (rows, TOKENS)).astype("int32"),
        "padding_mask": np.ones((rows, TOKENS), "int32"),
    }
    return x, rng.uniform(size=(rows, 100)).astype("float32")


if __name__ == "__main__":
    main()
