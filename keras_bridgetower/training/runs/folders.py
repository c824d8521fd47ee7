"""The files of a checkpoint."""

import json

import numpy as np
import safetensors
import safetensors.numpy

from keras_bridgetower import files
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.manifest import folder_sums
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

PREFIX = "step-"
# What reading a damaged checkpoint may raise.
OF_DAMAGE = (
    *(ValueError, KeyError, AttributeError, TypeError),
    safetensors.SafetensorError,
)


class CheckpointError(ValueError):
    """Raised if a checkpoint cannot be written, read or continued."""


def read(folder, name=None):
    """Read the arrays and facts of a checkpoint.

    Args:
        folder: path of a checkpoint.
        name: str, its name in errors. By default the path.

    Returns:
        `(arrays, facts)`, as in `RunFolder.write`.

    Raises:
        CheckpointError: a file is missing or changed.
    """
    try:
        facts = read_facts(folder)
        sums = folder_sums(folder)
        saved = facts["sha256"]
        changed = {n for n in {*sums, *saved} if sums.get(n) != saved.get(n)}
        if changed:
            raise ValueError(f"the sums of {sorted(changed)} are others")
        arrays = _read_arrays(folder)
    except (OSError, *OF_DAMAGE) as e:
        raise CheckpointError(
            "A checkpoint must be as it was written. Received: "
            f"folder={name or str(folder)!r} ({e})"
        ) from e
    return arrays, facts


def read_facts(folder):
    """Read the manifest of a checkpoint.

    Args:
        folder: path of a checkpoint.

    Returns:
        dict of plain values.

    Raises:
        OSError, ValueError: the manifest is missing or was changed.
    """
    text = files.read_text(folder / MANIFEST, LARGEST_ASSET)
    return files.parse_checksummed(text)


STATE = "state.safetensors"
# Dtypes that safetensors does not accept from NumPy are stored as integers.
_STORED_AS = {"bfloat16": "uint16"}
_TYPES = "types"


def write(folder, arrays, facts):
    """Write the files of a checkpoint into an empty folder.

    Args:
        folder: path.
        arrays: dict from name to NumPy array.
        facts: dict of plain values.

    Raises:
        OSError: the disk is full or not writable.
    """
    types = {name: str(a.dtype) for name, a in arrays.items()}
    stored = {}
    for name, array in arrays.items():
        kind = _STORED_AS.get(types[name], array.dtype)
        stored[name] = np.asarray(array, order="C").view(kind)
    content = safetensors.numpy.save(stored, {_TYPES: json.dumps(types)})
    (folder / STATE).write_bytes(content)
    text = files.checksummed({**facts, "sha256": folder_sums(folder)})
    (folder / MANIFEST).write_text(text)


def _read_arrays(folder):
    with safetensors.safe_open(folder / STATE, "numpy") as file:
        types = files.parse_json(file.metadata()[_TYPES])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    return {
        name: array.view(types[name]) if types[name] in _STORED_AS else array
        for name, array in arrays.items()
    }
