"""The manifest of a preset folder: what its files must be, to the bit."""

import hashlib
import json
import pathlib

import keras
import keras_hub

from keras_bridgetower.version import __version__

MANIFEST = "manifest.json"


def verify(folder):
    """Check a preset folder against its manifest, where it has one.

    Args:
        folder: path of the folder.

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
        elif sha256(file) != digest:
            wrong.append(f"{name} was changed")
    if wrong:
        raise _mismatch(folder, "; ".join(wrong))


def _mismatch(folder, wrong):
    return ValueError(
        f"The preset does not match its {MANIFEST}: {wrong}. "
        "Fetch it again, or save the model anew with `save_to_preset`. "
        f"Received: preset={str(folder)!r}"
    )


def write(folder):
    """Write the manifest of all files now in a preset folder."""
    folder = pathlib.Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    versions = {
        "keras_bridgetower": __version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
    }
    sums = {
        p.relative_to(folder).as_posix(): sha256(p)
        for p in files
        if p.name != MANIFEST
    }
    (folder / MANIFEST).write_text(_text(versions, sums))


def _text(versions, sums):
    """The whole file, which ends with a seal of its own content."""
    content = {"versions": versions, "sha256": sums}
    seal = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "seal": seal}, indent=2) + "\n"


def sha256(path):
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
