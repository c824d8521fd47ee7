"""Converts the original files of a data set to records.

The command line `keras-bridgetower data` calls these functions.
"""

import sys

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.datasets import by_name
from keras_bridgetower.data.records import write


def open_original(name, root, options=(), protocol="honest"):
    """Open a data set in its authors' files.

    Args:
        name: str, a key of `by_name.DATASETS`.
        root: path of the folder of the files.
        options: list of str, each `KEY=VALUE`: further arguments of the data
            set's class.
        protocol: str, one of the data set's.

    Returns:
        `base.DataSet`.

    Raises:
        ValueError: an unknown name, option or protocol, or a wrong value.
    """
    data = by_name.open_dataset(name, root, **_parse_options(options))
    check_choice("protocol", protocol, sorted(data.protocols))
    return data


def build_splits(data, folder, protocol, splits, on_left_out, **options):
    """Write splits of a data set as shards.

    Args:
        data: `base.DataSet`.
        folder: path of the folder to write.
        protocol: str, one of the data set's.
        splits: list of str, or None for all of the protocol.
        on_left_out: callable of the key of a record that was left out, and of
            the reason.
        **options: as in `write.write_shards`.

    Raises:
        ValueError: as in `write.write_shards`.
    """
    for name in splits or data.protocols[protocol]:
        entry = write.write_shards(
            folder,
            name,
            data.split(name, protocol),
            task=data.task,
            labels=data.labels,
            definition=data.definition(name, protocol).definition,
            **options,
        )
        for shard in entry["shards"]:
            for key, reason in shard["left_out"]:
                on_left_out(key, reason)


def _parse_options(options):
    """Parse `KEY=VALUE`s, to a dict."""
    for option in options:
        if "=" not in option:
            raise ValueError(f"--set must be KEY=VALUE. Received: {option!r}")
    return dict(option.split("=", 1) for option in options)


if __name__ == "__main__":
    sys.exit("This command is `keras-bridgetower data` now.")
