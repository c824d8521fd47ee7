"""The manifest of a preset folder: what its files must be, to the bit."""

import concurrent.futures
import hashlib
import json
import pathlib

import keras
import keras_hub

from keras_bridgetower.version import __version__

MANIFEST = "manifest.json"
# Larger files are read by a thread, once as long as nobody writes to them.
LARGE = 16_000_000
_POOL = concurrent.futures.ThreadPoolExecutor(1)
_DIGESTS = {}


def verify(folder, wait=True):
    """Check a preset folder against its manifest, where it has one.

    Args:
        folder: path of the folder.
        wait: bool. If False, the check of large files has only begun; call
            once more before what they hold is handed out.

    Raises:
        ValueError: a file is missing, differs, or stands in no manifest.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        return
    text = path.read_text(errors="replace")
    try:
        saved = json.loads(text)
        sums = dict(saved["sha256"])
        intact = text == _text(saved["versions"], sums)
    except (ValueError, TypeError, KeyError) as error:
        raise _mismatch(folder, f"{MANIFEST} is unreadable") from error
    if not intact:
        raise _mismatch(folder, f"{MANIFEST} was changed")
    wrong = []
    for name, digest in sums.items():
        file = folder / name
        if not file.is_file():
            wrong.append(f"{name} is missing")
        elif not _agrees(file, digest, wait):
            wrong.append(f"{name} was changed")
    if wrong:
        raise _mismatch(folder, "; ".join(wrong))


def _mismatch(folder, wrong):
    return ValueError(
        f"The preset does not match its {MANIFEST}: {wrong}. "
        "Fetch it again, or save the model anew with `save_to_preset`. What "
        "was converted into a cache is converted again once its folder is "
        f"removed. Received: preset={str(folder)!r}"
    )


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


def _agrees(file, digest, wait):
    stat = file.stat()
    if stat.st_size < LARGE:
        return sha256(file) == digest
    mark = (str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if mark not in _DIGESTS:
        _DIGESTS[mark] = _POOL.submit(sha256, file)
    return not wait or _DIGESTS[mark].result() == digest


def sha256(path):
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
