r"""Time this package's readers beside WebDataset and MosaicML's streaming.

    pip install webdataset
    pip install --no-deps mosaicml-streaming catalogue zstd xxhash \
        python-snappy cramjam brotli torchvision
    export KERAS_BACKEND=tensorflow
    python tools/benchmarks/benchmark_readers.py runs/readers

All read the same JPEGs from files of as many rows, decode and resize them in
Pillow, and give batches of uint8, which the loop makes float32. Each turn is a
process of its own: A B C, A B C, so that other work on the machine meets all.
Sums of pixels are compared: each reader must give every picture once, and
after a restart the batch of the first run. Writes readers.csv.

MosaicML's package asks for older NumPy and transformers: use an environment of
its own.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import psutil
from turns import report
from turns.readers import READERS
from turns.readers import write_all

MEASURED = 10  # A sum of processor seconds and memory each so many batches.


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turn", nargs=3, help="for the script itself")
    settings = parser.parse_args()
    if settings.turn:
        print(json.dumps(turn(settings.folder, *settings.turn)))
        return
    if not (settings.folder / "mds").exists():
        write_all(settings.folder, settings.pictures)
    rows = []
    for workers in settings.workers:
        for _ in range(settings.repeats):
            for name in READERS:
                rows.append({"reader": name, "workers": workers})
                rows[-1] |= run_turn(settings.folder, name, workers)
                print(rows[-1], flush=True)
    for workers in settings.workers:
        some = [row for row in rows if row["workers"] == workers]
        if len({row["sum"] for row in some}) > 1:
            raise ValueError("The readers gave different pictures")
        print(f"\n{workers} workers, medians of {settings.repeats}\n")
        print(table(some))
    report.write_csv(settings.folder / "readers.csv", rows)


def table(rows):
    """Return medians, and the speed over webdataset's of the same turn."""
    columns = [c for c in rows[0] if c not in ("reader", "workers", "sum")]
    titles = ["", *columns, "speed over webdataset"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    own = {n: [row for row in rows if row["reader"] == n] for n in READERS}
    speeds = {n: [row["rows a second"] for row in own[n]] for n in READERS}
    for name in READERS:
        values = [[row[c] for row in own[name]] for c in columns]
        pairs = zip(speeds[name], speeds["webdataset"], strict=True)
        values.append([speed / their for speed, their in pairs])
        cells = [f"{statistics.median(every):.3g}" for every in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run_turn(folder, name, workers):
    program = [sys.executable, __file__, str(folder), "--turn"]
    program += [name, str(workers), repr(time.time())]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def turn(folder, name, workers, started):
    """Measure one reader in this process."""
    reader = READERS[name](folder, int(workers))
    opened, sums, marks = time.time(), [], []
    for number, batch in enumerate(reader.batches()):
        pixels = batch.astype("float32") / 255
        sums.append((len(pixels), int(batch.sum(dtype="int64"))))
        # Processes of workers end before the loop does.
        if number % MEASURED == 0:
            rows = sum(count for count, _ in sums)
            state = time.time(), rows, processor_seconds(), megabytes()
            marks.append(state)
    pairs = zip(marks[0], marks[-1], strict=True)
    seconds, rows, busy, _ = (last - first for first, last in pairs)
    middle = len(sums) // 2
    began = time.time()
    batches = reader.batches(middle)
    batch = next(batches)
    resumed = time.time() - began
    if int(batch.sum(dtype="int64")) != sums[middle][1] and not int(workers):
        raise ValueError(f"{name} gave another batch after a restart")
    batches.close()
    began, count = time.process_time(), reader.read()
    alone = time.process_time() - began
    return {
        "rows a second": rows / seconds,
        "processor ms a row": 1000 * busy / rows,
        "of which reading": 1000 * alone / count,
        "imports s": opened - float(started),
        "first batch s": marks[0][0] - opened,
        "resume s": resumed,
        "megabytes": max(mark[-1] for mark in marks),
        "sum": sum(total for _, total in sums),
    }


def processor_seconds():
    """Return the seconds of this process and of its running children."""
    process = psutil.Process()
    times = [p.cpu_times() for p in (process, *process.children())]
    return sum(t.user + t.system for t in times)


def megabytes():
    """Return the memory of this process and its children, shared parts once."""
    process = psutil.Process()
    every = (process, *process.children())
    return sum(p.memory_full_info().pss for p in every) / 10**6


if __name__ == "__main__":
    main()
