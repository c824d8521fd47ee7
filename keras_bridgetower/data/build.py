"""Command that converts the original files of a data set to records.

    python -m keras_bridgetower.data.build check vqav2 ORIGINALS
    python -m keras_bridgetower.data.build build vqav2 ORIGINALS FOLDER
    python -m keras_bridgetower.data.build stats FOLDER --verify
    python -m keras_bridgetower.data.build show FOLDER train sheet.png

`check` tells whether all original files are there, `build` writes the records,
`stats` counts them, and `show` draws some of them.

`build` may be killed at any time; the same command continues it. `--set` gives
a further argument of a data set, such as `--set coco=FOLDER` for vgqa or
`--set task_name=rte` for glue. `--set` and `--splits` take one value each and
can be repeated: `--splits train --splits validation`.
"""

import argparse
import inspect
import os
import sys

import keras
import numpy as np

from keras_bridgetower.data.datasets import by_name
from keras_bridgetower.data.datasets.sample_sheet import sample_sheet
from keras_bridgetower.data.records import format
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.on_beam import on_beam


def main():
    """Run the command line."""
    arguments = _parser().parse_args()
    try:
        arguments.verb(arguments)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def check(arguments):
    """List found and missing files, counts, and the first bad picture."""
    data = _open(arguments)
    reports = data.check(arguments.protocol, arguments.splits, _progress)
    print(*reports, sep="\n")
    if not all(report.ok for report in reports):
        sys.exit("Not all is there; see the lines in capitals.")


def build(arguments):
    """Write the splits of a protocol as files of records."""
    data = _open(arguments)
    for name in arguments.splits or data.protocols[arguments.protocol]:
        split = data.definition(name, arguments.protocol)
        print(f"{name}: {split.definition}")
        entry = write.write_shards(
            arguments.folder,
            name,
            data.split(name, arguments.protocol),
            task=data.task,
            labels=data.labels,
            definition=split.definition,
            num_shards=arguments.shards,
            seed=arguments.seed,
            max_bad_share=arguments.max_bad_share,
            run=_runner(arguments),
            on_shard=_shard_progress(),
        )
        for shard in entry["shards"]:
            for key, reason in shard["left_out"]:
                print(f"  left out {key}: {reason}")
    stats(arguments)


def stats(arguments):
    """Print the splits, counts and sources of a data set."""
    index = format.read_index(arguments.folder)
    print(f"task {index['task']}, {len(index['labels'])} labels")
    damaged = {}
    for name in index["splits"]:
        reader = read.open_records(arguments.folder, name)
        size = sum(shard["bytes"] for shard in reader.shards)
        left_out = sum(len(shard["left_out"]) for shard in reader.shards)
        print(
            f"{name}: {reader.num_records:,} records, "
            f"{reader.num_samples:,} samples, {len(reader.shards)} shards, "
            f"{size:,} bytes, {left_out} left out"
        )
        print(f"  {reader.definition}")
        for source, count in sorted(reader.sources.items()):
            print(f"  {source}: {count:,} samples")
        if arguments.verify:
            damaged |= reader.verify()
    for why in damaged.values():
        print(f"  DAMAGED {why}")
    if damaged:
        sys.exit(f"{len(damaged)} shards are damaged; build again.")


def show(arguments):
    """Draw random samples of a split into one picture."""
    reader = read.open_records(arguments.folder, arguments.split)
    count = min(arguments.count, reader.num_samples)
    rng = np.random.default_rng(arguments.seed)
    rows = rng.choice(reader.num_samples, count, replace=False)
    samples = [reader.sample(int(row)) for row in rows]
    sample_sheet(samples, reader.labels).save(arguments.picture)
    print(f"{count} of {reader.num_samples:,} samples: {arguments.picture}")


def _open(arguments):
    options = _options(by_name.DATASETS[arguments.name], arguments.set)
    data = by_name.open_dataset(arguments.name, arguments.root, **options)
    if arguments.protocol not in data.protocols:
        raise ValueError(
            f"--protocol must be one of {sorted(data.protocols)}. Received: "
            f"{arguments.protocol}"
        )
    return data


def _options(kind, given):
    """The values of `--set` by key, as ints if the data set expects ints."""
    known = inspect.signature(kind).parameters
    options = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE. Received: {option!r}")
        try:
            number = key in known and isinstance(known[key].default, int)
            options[key] = int(value) if number else value
        except ValueError as error:
            raise ValueError(
                f"--set {key} must be a whole number. Received: {option!r}"
            ) from error
    return options


def _runner(arguments):
    if arguments.runner:
        return on_beam(arguments.runner)
    return write.in_processes(arguments.workers)


def _progress(items):
    bar = keras.utils.Progbar(len(items), unit_name="record")
    for number, item in enumerate(items, 1):
        yield item
        bar.update(number)


def _shard_progress():
    bars = {}

    def update(done, total):
        bar = bars.setdefault(
            total, keras.utils.Progbar(total, unit_name="shard")
        )
        bar.update(done)

    return update


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for verb in (check, build):
        added = _verb(verbs, verb)
        added.add_argument("name", choices=sorted(by_name.DATASETS))
        added.add_argument("root", help="folder of the original files")
        added.add_argument("--protocol", default="honest")
        added.add_argument("--splits", action="append", metavar="SPLIT")
        added.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE"
        )
    added.add_argument("folder", help="where the data set goes")
    added.add_argument("--shards", type=int)
    added.add_argument("--seed", type=int, default=0)
    added.add_argument("--workers", type=int, default=os.cpu_count())
    added.add_argument("--max-bad-share", type=float, default=0.0)
    added.add_argument("--runner", help="write by this runner of Apache Beam")
    added.set_defaults(verify=False)
    added = _verb(verbs, stats)
    added.add_argument("folder")
    added.add_argument("--verify", action="store_true")
    added = _verb(verbs, show)
    added.add_argument("folder")
    added.add_argument("split")
    added.add_argument("picture")
    added.add_argument("--count", type=int, default=12)
    added.add_argument("--seed", type=int, default=0)
    return parser


def _verb(verbs, function):
    added = verbs.add_parser(function.__name__, help=function.__doc__)
    added.set_defaults(verb=function)
    return added


if __name__ == "__main__":
    main()
