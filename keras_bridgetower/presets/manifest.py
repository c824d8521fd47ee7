"""The manifest of a preset folder: the names and checksums of its files."""

import concurrent.futures
import os
import pathlib

import keras
import keras_hub

from keras_bridgetower.files import MANIFEST
from keras_bridgetower.files import checksummed
from keras_bridgetower.files import folder_sums
from keras_bridgetower.files import parse_checksummed
from keras_bridgetower.files import plain_name
from keras_bridgetower.files import sha256
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.safe_files import check_regular
from keras_bridgetower.presets.safe_files import read_json
from keras_bridgetower.version import __version__


def verify(folder):
    """Check a preset folder against its manifest, if it has one.

    Args:
        folder: path of the folder.

    Returns:
        dict from the name of each file to a `Future` of its check, or None
        without a manifest. The checks of weights have only begun: wait for
        them before the weights are used.

    Raises:
        PresetError: a file is missing or differs. `Future.result` of weights
            raises it too.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    # Raises an error that says more if it is no JSON.
    read_json(path, folder)
    try:
        sums = parse_checksummed(path.read_text())["sha256"]
    except (ValueError, KeyError):
        sums = None
    if not isinstance(sums, dict) or not all(map(plain_name, sums)):
        raise _mismatch(folder, MANIFEST)
    for name in sums:
        check_regular(folder / name, folder)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    checks = {
        name: pool.submit(_check_sum, folder, name, sums[name])
        for name in sorted(sums, key=_is_weights)
    }
    pool.shutdown(wait=False)
    for name, check in checks.items():
        if not _is_weights(name):
            check.result()
    return checks


def _is_weights(name):
    return name.endswith(".weights.h5")


def _check_sum(folder, name, digest):
    if sha256(folder / name) != digest:
        raise _mismatch(folder, name)


def _mismatch(folder, name):
    return PresetError(
        f"The preset does not match its {MANIFEST}: {name} was changed. Fetch "
        "it again, or save the model again with `save_to_preset`. A converted "
        "preset in the cache is converted again once its folder is removed.",
        folder,
    )


def write(folder):
    """Write the manifest of all files in a preset folder."""
    folder = pathlib.Path(folder)
    versions = {
        "keras_bridgetower": __version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
    }
    content = {"versions": versions, "sha256": folder_sums(folder)}
    (folder / MANIFEST).write_text(checksummed(content))
