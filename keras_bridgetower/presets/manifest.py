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

from keras_bridgetower.files import sha256
from keras_bridgetower.files import state_of
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
# More files than that have no place in a preset.
_MOST_FILES = 10_000


class Seal:
    """The sums of a folder's files, those of large files still being made.

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
        """Wait for the sums of the large files.

        Args:
            names: collection of str, the files that matter; by default all.

        Raises:
            PresetError: one of them was changed, or cannot be read.
        """
        wrong = []
        for name in self._pending if names is None else names:
            if name not in self._pending:
                continue  # A small one, checked already.
            made, digest = self._pending[name]
            if error := made.exception():
                wrong.append(f"{name} cannot be read: {error!s:.200}")
            elif made.result() != digest:
                wrong.append(f"{name} was changed")
        if wrong:
            raise _mismatch(self.folder, wrong)


def verify(folder):
    """Check a preset folder against its manifest, where it has one.

    Args:
        folder: path of the folder.

    Returns:
        `Seal`, whose `finish` must be called before what large files hold is
        handed out: their check has only begun. None without a manifest.

    Raises:
        PresetError: a file is missing, differs, or does not stand in it.
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
        problem = f"{MANIFEST} is unreadable"
        raise _mismatch(folder, [problem]) from error
    if not intact or not isinstance(sums, dict):
        raise _mismatch(folder, [f"{MANIFEST} was changed"])
    odd = [name for name in sums if not plain_name(name)]
    if odd:
        raise _mismatch(
            folder,
            [f"{short_text(name)} is no name of a file in it" for name in odd],
        )
    return Seal(folder, sums)


def _mismatch(folder, wrong):
    return PresetError(
        f"The preset does not match its {MANIFEST}: {'; '.join(wrong[:20])}. "
        "Fetch it again, or save the model anew with `save_to_preset`. What "
        "was converted into a cache is converted again once its folder is "
        "removed.",
        folder,
    )


def _unlisted(folder, names):
    """Files that no manifest names; what tools hide there does not count."""
    found = []
    for name in _files_of(folder):
        if name not in names and name != MANIFEST:
            found.append(short_text(name))
        if len(found) > 20:
            break
    return found


def _files_of(folder):
    """The names of all files below a folder, links not followed."""
    count, waiting = 0, [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                # Of git, of file managers, of download tools: never opened.
                if not below and entry.name.startswith("."):
                    continue
                count += 1
                if count > _MOST_FILES:
                    raise _mismatch(folder, ["it holds too many files"])
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                else:
                    yield f"{below}{entry.name}"


def write(folder):
    """Write the manifest of all files now in a preset folder."""
    folder = pathlib.Path(folder)
    versions = {
        "keras_bridgetower": __version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
    }
    (folder / MANIFEST).write_text(_text(versions, sums_of(folder)))


def sums_of(folder):
    """The SHA-256 of each file of a folder but the manifest, by its path."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _text(versions, sums):
    """The whole file, which ends with a seal of its own content."""
    content = {"versions": versions, "sha256": sums}
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "seal": seal}, indent=2) + "\n"


def _digest_of_large(file):
    """The future sum of a file, begun once for each state of the file."""
    process = os.getpid()
    mark = (process, *state_of(file))
    with _LOCK:
        made = _DIGESTS.get(mark)
        # What could not be read once may be read now.
        if made is None or (made.done() and made.exception()):
            made = _DIGESTS[mark] = _pool(process).submit(sha256, file)
    return made


@functools.cache
def _pool(process):
    """The thread of a process; one that was forked has none of its parent."""
    return concurrent.futures.ThreadPoolExecutor(1)
