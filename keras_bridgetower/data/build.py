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

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import is_integer
from keras_bridgetower.data import look
from keras_bridgetower.data.datasets import by_name
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.on_beam import on_beam

# What `check` ends with.
NOT_GOOD = "Not all is there; see the lines in capitals."


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
        sys.exit(NOT_GOOD)


def build(arguments):
    """Write the splits of a protocol as shards."""
    build_splits(
        _open(arguments),
        arguments.folder,
        arguments.protocol,
        arguments.splits,
        on_split=lambda name, definition: print(f"{name}: {definition}"),
        on_left_out=print_left_out,
        num_shards=arguments.shards,
        seed=arguments.seed,
        max_bad_share=arguments.max_bad_share,
        run=runner(arguments.workers, arguments.runner),
        on_shard=_shard_progress(),
    )
    stats(arguments)


def stats(arguments):
    """Print what a data set holds."""
    found = look.contents(arguments.folder, arguments.verify)
    print(*look.lines_of(found), sep="\n")
    if found["damaged"]:
        sys.exit(f"{len(found['damaged'])} shards are damaged; build again.")


def show(arguments):
    """Draw some samples of a split into one picture."""
    count, of = look.draw(
        arguments.folder,
        arguments.split,
        arguments.picture,
        arguments.count,
        arguments.seed,
    )
    print(f"{count} of {of:,} samples: {arguments.picture}")


def open_original(name, root, options=(), protocol="honest"):
    """A data set in its authors' files.

    Args:
        name: str, a key of `by_name.DATASETS`.
        root: path of the folder that holds the files.
        options: list of str, each `KEY=VALUE`: further arguments of the data
            set's class.
        protocol: str, one of the data set's.

    Returns:
        `base.DataSet`.

    Raises:
        ValueError: values that do not exist or do not fit.
    """
    check_choice("name", name, sorted(by_name.DATASETS))
    given = _options(by_name.DATASETS[name], options)
    data = by_name.open_dataset(name, root, **given)
    if protocol not in data.protocols:
        raise ValueError(
            f"--protocol must be one of {sorted(data.protocols)}. Received: "
            f"{protocol}"
        )
    return data


def build_splits(
    data, folder, protocol, splits, on_split, on_left_out, **options
):
    """Write splits of a data set as shards.

    Args:
        data: `base.DataSet`.
        folder: path, where the shards go.
        protocol: str, one of the data set's.
        splits: list of str, or None for all of the protocol.
        on_split: callable of a split's name and definition, before it is
            written.
        on_left_out: callable of the key of a record that was left out, and of
            the reason.
        **options: as `write.write_shards` takes them.

    Raises:
        ValueError: as `write.write_shards`.
    """
    for name in splits or data.protocols[protocol]:
        split = data.definition(name, protocol)
        on_split(name, split.definition)
        entry = write.write_shards(
            folder,
            name,
            data.split(name, protocol),
            task=data.task,
            labels=data.labels,
            definition=split.definition,
            **options,
        )
        for shard in entry["shards"]:
            for key, reason in shard["left_out"]:
                on_left_out(key, reason)


def print_left_out(key, reason):
    """A line for a record that was left out."""
    print(f"  left out {key}: {reason}")


def runner(workers, beam_runner=None):
    """What runs the jobs of `write.write_shards`: processes, or Beam."""
    if beam_runner:
        return on_beam(beam_runner)
    return write.in_processes(workers)


def _open(arguments):
    return open_original(
        arguments.name, arguments.root, arguments.set, arguments.protocol
    )


def _options(kind, given):
    """The values of `--set` by key, as ints if the data set expects ints."""
    known = inspect.signature(kind).parameters
    options = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE. Received: {option!r}")
        try:
            number = key in known and is_integer(known[key].default)
            options[key] = int(value) if number else value
        except ValueError as error:
            raise ValueError(
                f"--set {key} must be a whole number. Received: {option!r}"
            ) from error
    return options


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
