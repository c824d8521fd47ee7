"""The manifest of a preset folder: the names and checksums of its files."""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import threading

import keras
import keras_hub

from keras_bridgetower.files import file_state
from keras_bridgetower.files import sha256
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.errors import short_text
from keras_bridgetower.presets.safe_files import check_regular
from keras_bridgetower.presets.safe_files import plain_name
from keras_bridgetower.presets.safe_files import read_json
from keras_bridgetower.version import __version__

MANIFEST = "manifest.json"
# Larger files are read by a thread, once as long as nobody writes to them.
LARGE = 16_000_000
_DIGESTS = {}
_LOCK = threading.Lock()


class Seal:
    """The checksums of a folder's files; those of large files run in a thread.

    Args:
        folder: path of the preset folder.
        sums: dict from the name of each file to its SHA-256.
    """

    def __init__(self, folder, sums):
        self.folder = folder
        self.names = frozenset(sums)
        wrong = [f"{n} is not in it" for n in _unlisted(folder, self.names)]
        self._pending = {}
        for name, digest in sums.items():
            file = folder / name
            if not os.path.lexists(file):
                wrong.append(f"{name} is missing")
                continue
            check_regular(file, folder)
            if file.stat().st_size >= LARGE:
                self._pending[name] = (_digest_of_large(file), digest)
            elif sha256(file) != digest:
                wrong.append(f"{name} was changed")
        if wrong:
            raise _mismatch(folder, wrong)

    def finish(self, names=None):
        """Wait for the checksums of the large files.

        Args:
            names: collection of str, the files to wait for; by default all.

        Raises:
            PresetError: one of them was changed, or cannot be read.
        """
        wrong = []
        for name, (future, digest) in self._pending.items():
            if names is not None and name not in names:
                continue
            if error := future.exception():
                wrong.append(f"{name} cannot be read: {error!s:.200}")
            elif future.result() != digest:
                wrong.append(f"{name} was changed")
        if wrong:
            raise _mismatch(self.folder, wrong)


def verify(folder):
    """Check a preset folder against its manifest, if it has one.

    Args:
        folder: path of the folder.

    Returns:
        `Seal`, or None without a manifest. The check of large files has only
        begun: call `finish` before their content is handed out.

    Raises:
        PresetError: a file is missing, differs, or is not in the manifest.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        saved = read_json(path, folder)
        sums = saved["sha256"]
        intact = path.read_text() == _text(saved["versions"], sums)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _mismatch(folder, [f"{MANIFEST} is unreadable"]) from error
    if not intact or not isinstance(sums, dict):
        raise _mismatch(folder, [f"{MANIFEST} was changed"])
    odd = [
        f"{short_text(name)} is no name of a file in it"
        for name in sums
        if not plain_name(name)
    ]
    if odd:
        raise _mismatch(folder, odd)
    return Seal(folder, sums)


def _mismatch(folder, wrong):
    return PresetError(
        f"The preset does not match its {MANIFEST}: {'; '.join(wrong[:20])}. "
        "Fetch it again, or save the model anew with `save_to_preset`. A "
        "converted preset in the cache is converted again once its folder is "
        "removed.",
        folder,
    )


def _unlisted(folder, names):
    """List files that are not in the manifest, links not followed."""
    found = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    # Files of git, file managers or download tools are never opened.
    return sorted(
        short_text(name)
        for name in found
        if name not in names and name != MANIFEST and name[0] != "."
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


def _digest_of_large(file):
    """Return the future checksum of a file, one for each state of the file."""
    process = os.getpid()
    key = (process, *file_state(file))
    with _LOCK:
        future = _DIGESTS.get(key)
        # A file that could not be read may be readable now.
        if future is None or (future.done() and future.exception()):
            future = _DIGESTS[key] = _pool(process).submit(sha256, file)
    return future


@functools.cache
def _pool(process):
    """Return the thread of a process; a forked one has none of its parent."""
    return concurrent.futures.ThreadPoolExecutor(1)
