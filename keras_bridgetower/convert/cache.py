"""Converts a foreign checkpoint to a preset once, and keeps it in a cache."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import warnings

from keras_bridgetower import files
from keras_bridgetower.convert import authors
from keras_bridgetower.convert import transformers_folder
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.folder import PresetFolder
from keras_bridgetower.version import __version__

SHA256 = re.compile("[0-9a-f]{64}")
# Nanoseconds. Some file systems round the times of files to two seconds.
CLOCK_TICK = 2_000_000_000
# Largest number of stored digests.
MOST_DIGESTS = 1000


def open_checkpoint(source, **kwargs):
    """Open weights of another library.

    Args:
        source: path of a `transformers` folder, or of a checkpoint file of
            the authors.
        **kwargs: `text_heads`, `answers` and `ignore` of `authors.read`,
            for a checkpoint file.

    Returns:
        `Checkpoint`.
    """
    source = pathlib.Path(source)
    if source.is_file():
        return authors.read(source, **kwargs)
    return transformers_folder.read(source, **kwargs)


def open_converted(source, published=None):
    """Open the preset of a foreign checkpoint; convert it if it is not cached.

    The folder's name is computed from the contents of the source and the
    version of this library. A file is read again only if its time or size has
    changed.

    Args:
        source: path, as in `open_checkpoint`.
        published: dict from the name of a file to the first digits of its
            SHA-256, as `hub.published` returns it.

    Returns:
        `PresetFolder` in the cache.

    Raises:
        ConversionError: files cannot be read, do not fit or change meanwhile,
            or the cache cannot be written.
    """
    source = pathlib.Path(source).resolve()
    states = _file_states(source)
    digests = _digests(states)
    _check_digests(digests, published or {})
    named = sorted((path.name, digest) for path, digest in digests.items())
    content = json.dumps([__version__, named])
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    folder = _cache_folder() / key
    preset = _complete_preset(folder)
    if preset:
        return preset
    folder.parent.mkdir(parents=True, exist_ok=True)
    # If several processes open it at once, the first one converts it.
    with files.locked(folder.parent / f"{key}.lock"):
        preset = _complete_preset(folder)
        if preset:
            return preset
        shutil.rmtree(folder, ignore_errors=True)
        # Without working locks another process may write it first.
        with contextlib.suppress(files.FolderExists):
            open_checkpoint(source).save_to_preset(folder)
        if _file_states(source) != states:
            shutil.rmtree(folder)
            raise ConversionError(
                "A checkpoint must not change while it is converted. Try "
                "again when it is complete.",
                source,
            )
    return PresetFolder(folder)


def _complete_preset(folder):
    """Open the cached preset, or return None if it is absent or incomplete."""
    try:
        opened = PresetFolder(folder)
    except (ValueError, OSError):
        return None
    return opened if opened.has_manifest else None


def _check_digests(digests, published):
    """Compare the digests of files with the expected ones."""
    for path, digest in digests.items():
        # In the hub's cache, the real name of a large file is a link to a
        # file that is named by its SHA-256.
        blob = pathlib.Path(os.readlink(path) if path.is_symlink() else path)
        named = blob.parent.name == "blobs" and SHA256.fullmatch(blob.name)
        if named and blob.name != digest:
            raise ConversionError(
                "The file was damaged after it was fetched: its SHA-256 is "
                f"{digest:.16}... Remove it; it will be fetched again.",
                path.parent / blob,
                [f"it is {path.name} of {path.parent}"],
            )
        expected = published.get(path.name)
        if expected and not digest.startswith(expected):
            warnings.warn(
                f"{path.name} is not the file that was published when this "
                f"version was released: its SHA-256 begins {digest[:16]}, "
                f"expected {expected}. If the repository was not updated, "
                f"do not use it. Received: file={str(path)!r}",
                stacklevel=2,
            )


def _cache_folder():
    return files.keras_home() / "keras_bridgetower" / "presets"


def _file_states(source):
    """Return for each file a text that changes with it, and its latest time."""
    states = {}
    for path in needed_files.checkpoint_files(source):
        state = files.file_state(path)
        states[path] = " ".join(map(str, state)), max(state[-2:])
    return states


def _digests(states):
    """Compute the digest of each file; only changed files are read again."""
    stored = _cache_folder() / "digests.json"
    try:
        known = files.read_json(stored)
        known = {s: d for s, d in known.items() if SHA256.fullmatch(d)}
    except (AttributeError, OSError, TypeError, ValueError):
        known = {}  # Absent or damaged.
    now = time.time_ns()
    digests, new = {}, {}
    for path, (state, latest) in states.items():
        digests[path] = known.get(state) or files.sha256(path)
        # A new file may change again within the same tick of the clock.
        if now - latest > CLOCK_TICK:
            new[state] = digests[path]
    if not new.items() <= known.items():
        kept = {s: d for s, d in known.items() if s not in new} | new
        text = json.dumps(dict(list(kept.items())[-MOST_DIGESTS:])).encode()
        # If this fails, the checkpoint is read again next time.
        with (
            contextlib.suppress(OSError, ValueError),
            files.locked(stored.with_suffix(".lock")),
        ):
            files.write_atomically(stored, lambda file: file.write(text))
    return digests
