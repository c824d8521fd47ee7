"""Open streams of up to a billion rows: seconds and memory of each process.

    export KERAS_BACKEND=tensorflow
    python tools/benchmarks/benchmark_reader.py runs/rows

Each split is one shard of short texts, hard-linked as many times as the rows
need, so it stays in the page cache. One process, and eight at a time, open it
as one of so many hosts, read the first batch, and one amid epoch 37.
Writes rows.csv and rows.png.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import time

from turns import report

PROCESSES = (1, 8)
ROWS = (10**6, 10**7, 10**8, 10**9)
BATCH, SPLIT = 4096, "train"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    settings = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = []
    for rows in settings.rows:
        folder = settings.folder / f"{rows}"
        if not (folder / "index.json").exists():
            with context.Pool(1) as pool:
                pool.apply(make, (folder, rows))
        for count in PROCESSES:
            with context.Pool(count) as pool:
                jobs = [(folder, rows, count, host) for host in range(count)]
                every = pool.starmap(measure, jobs)
            worst = {k: max(one[k] for one in every) for k in every[0]}
            found.append({"rows": rows, "processes": count, **worst})
            print(found[-1], flush=True)
    report.write_csv(settings.folder / "rows.csv", found)
    columns = "open_s", "first_batch_s", "jump_s", "megabytes"
    panels = [(found, "rows", column, "processes") for column in columns]
    report.curves(settings.folder / "rows.png", *panels, xscale="log")


def make(folder, rows):
    """Write a split of one shard, and link it under the names of all."""
    from keras_bridgetower import data
    from keras_bridgetower.data.records import format as form
    from keras_bridgetower.data.records import write

    shards = min(rows // write.RECORDS_PER_SHARD, write.MOST_SHARDS)
    records = [
        data.Record(f"{i}", (), (data.Sample(f"{i}", "it rains", (0,)),), "a")
        for i in range(rows // shards)
    ]
    entry = data.write_shards(
        folder,
        SPLIT,
        records,
        num_shards=1,
        task="text_classification",
        labels=["wet", "dry"],
        definition="One shard, many times.",
    )
    (shard,) = entry["shards"]
    first = folder / shard["file"]
    names = [form.shard_name(SPLIT, i, shards) for i in range(shards)]
    for name in names:
        os.link(first, folder / name)
        os.link(form.offsets_path(first), form.offsets_path(folder / name))
    entry |= {
        "num_shards": shards,
        "shards": [shard | {"file": name} for name in names],
    }
    index = form.read_index(folder)
    index["splits"][SPLIT] = entry
    (folder / form.INDEX).write_text(json.dumps(form.sealed(index)))


def measure(folder, rows, num_hosts, host):
    """Return seconds and megabytes of a process that reads a part."""
    from keras_bridgetower import data

    before, started = megabytes(), time.perf_counter()
    reader = data.open_records(folder, SPLIT)
    stream = data.Stream(reader, BATCH, num_hosts=num_hosts, host=host)
    opened = time.perf_counter()
    if len(reader) != rows:
        raise ValueError(f"{folder} has {len(reader)} rows: remove it")
    stream.batch(0)
    first = time.perf_counter()
    stream.batch(37 * stream.steps_per_epoch + stream.steps_per_epoch // 2)
    jumped = time.perf_counter()
    return {
        "open_s": round(opened - started, 2),
        "first_batch_s": round(first - opened, 2),
        "jump_s": round(jumped - first, 2),
        "megabytes": round(megabytes() - before),
    }


def megabytes():
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
