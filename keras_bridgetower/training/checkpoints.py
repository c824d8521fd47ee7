"""Checkpoint folders: written whole or not at all, checked when read."""

import hashlib
import json
import os
import pathlib
import shutil
import warnings

import numpy as np
import safetensors
import safetensors.numpy

MANIFEST = "manifest.json"
STATE = "state.safetensors"
_PREFIX = "step-"
# What safetensors does not take from NumPy is stored as whole numbers.
_STORED_AS = {"bfloat16": "uint16"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or continued."""


def write(directory, step, arrays, facts):
    """Write a checkpoint: to a temporary folder, synchronised, then renamed.

    Args:
        directory: path of the run's folder.
        step: int, updates so far; the name of the checkpoint.
        arrays: dict from name to NumPy array.
        facts: dict of plain values for the manifest.

    Returns:
        Path of the checkpoint.

    Raises:
        CheckpointError: the disk is full or not writable. What stood in the
            folder before is as it was.
    """
    directory = pathlib.Path(directory)
    final = directory / f"{_PREFIX}{step:09d}"
    made = directory / f".{final.name}.{os.getpid()}"
    types = {name: str(a.dtype) for name, a in arrays.items()}
    stored = {
        name: np.asarray(a, order="C").view(
            _STORED_AS.get(types[name], a.dtype)
        )
        for name, a in arrays.items()
    }
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        content = safetensors.numpy.save(stored)
        _write(made / STATE, content)
        digest = hashlib.sha256(content).hexdigest()
        facts = {**facts, "step": step, "types": types, "sha256": digest}
        text = json.dumps(facts, indent=1) + "\n"
        _write(made / MANIFEST, text.encode())
        shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        _synchronise(directory)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint of step {step} could not be written; those "
            "before are as they were. Make room, or choose another "
            f"directory. Received: directory={str(directory)!r} ({error})"
        ) from error
    return final


def read(folder):
    """The arrays and facts of a checkpoint.

    Args:
        folder: path of a checkpoint.

    Returns:
        `(arrays, facts)`, as `write` took them.

    Raises:
        CheckpointError: a file is missing or not as it was written.
    """
    folder = pathlib.Path(folder)
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        content = (folder / STATE).read_bytes()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ValueError(f"the sum of {STATE} is another one")
        arrays = safetensors.numpy.load(content)
        types = facts.pop("types")
        named = {
            name: array.view(types[name])
            if types[name] in _STORED_AS
            else array
            for name, array in arrays.items()
        }
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as e:
        raise CheckpointError(
            "A checkpoint must be as it was written. Received: "
            f"folder={str(folder)!r} ({e})"
        ) from e
    return named, facts


def newest(directory):
    """The newest checkpoint of a run that can be read.

    Damaged ones are passed over, with a warning.

    Args:
        directory: path of the run's folder.

    Returns:
        `(arrays, facts)`, or None where the run has no checkpoint.

    Raises:
        CheckpointError: there are checkpoints, but none can be read.
    """
    error = None
    for folder in reversed(all_of(directory)):
        try:
            return read(folder)
        except CheckpointError as found:
            error = found
            warnings.warn(
                f"{found} The checkpoint before it is tried.", stacklevel=2
            )
    if error is not None:
        raise error
    return None


def all_of(directory):
    """Paths of the checkpoints of a run, oldest first."""
    return sorted(pathlib.Path(directory).glob(f"{_PREFIX}*"))


def prune(directory, keep, monitor, better):
    """Remove all checkpoints but the newest and the best.

    Args:
        directory: path of the run's folder.
        keep: int, how many of the newest stay.
        monitor: str, name of the logged value that tells the best, or None.
        better: callable, `max` or `min`.
    """
    folders = all_of(directory)
    kept = set(folders[-keep:])
    scores = {}
    for folder in folders:
        logs = json.loads((folder / MANIFEST).read_text()).get("logs", {})
        if monitor in logs:
            scores[folder] = logs[monitor]
    if scores:
        kept.add(better(scores, key=scores.get))
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)
    for left in pathlib.Path(directory).glob(f".{_PREFIX}*"):
        # Of a process that was killed while it wrote.
        shutil.rmtree(left, ignore_errors=True)


def _write(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _synchronise(directory):
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
