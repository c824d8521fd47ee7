"""The manifest of a preset folder: the names and checksums of its files."""

import concurrent.futures
import hashlib
import json
import os
import pathlib

import keras
import keras_hub

from keras_bridgetower.files import sha256
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.safe_files import check_regular
from keras_bridgetower.presets.safe_files import plain_name
from keras_bridgetower.presets.safe_files import read_json
from keras_bridgetower.version import __version__

MANIFEST = "manifest.json"


class Seal:
    """The checksums of a folder's files; weights are checked by a thread.

    Args:
        folder: path of the preset folder.
        sums: dict from the name of each file to its SHA-256.
    """

    def __init__(self, folder, sums):
        self._folder, self._weights = folder, {}
        self.names = frozenset(sums)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        for name, digest in sums.items():
            check_regular(folder / name, folder)
            if name.endswith(".weights.h5"):
                found = pool.submit(sha256, folder / name)
                self._weights[name] = found, digest
            elif sha256(folder / name) != digest:
                raise _mismatch(folder, name)
        pool.shutdown(wait=False)

    def finish(self):
        """Wait for the checksums of the weights.

        Raises:
            PresetError: one of them was changed.
        """
        for name, (found, digest) in self._weights.items():
            if found.result() != digest:
                raise _mismatch(self._folder, name)


def verify(folder):
    """Check a preset folder against its manifest, if it has one.

    Args:
        folder: path of the folder.

    Returns:
        `Seal`, or None without a manifest. The check of the weights has only
        begun: call `finish` before they are handed out.

    Raises:
        PresetError: a file is missing or differs.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    saved = read_json(path, folder)
    try:
        sums = saved["sha256"]
        intact = path.read_text() == _text(saved["versions"], sums)
        intact = intact and isinstance(sums, dict)
        intact = intact and all(map(plain_name, sums))
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise _mismatch(folder, MANIFEST)
    return Seal(folder, sums)


def _mismatch(folder, name):
    return PresetError(
        f"The preset does not match its {MANIFEST}: {name} was changed. Fetch "
        "it again, or save the model anew with `save_to_preset`. A converted "
        "preset in the cache is converted again once its folder is removed.",
        folder,
    )


def write(folder):
    """Write the manifest of all files now in a preset folder."""
    folder = pathlib.Path(folder)
    versions = {
        "keras_bridgetower": __version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
    }
    (folder / MANIFEST).write_text(_text(versions, folder_sums(folder)))


def folder_sums(folder):
    """Return the SHA-256 of each file but the manifest, by its path."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _text(versions, sums):
    """Return the content of the file, which ends with its own checksum."""
    content = {"versions": versions, "sha256": sums}
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "seal": seal}, indent=2) + "\n"
