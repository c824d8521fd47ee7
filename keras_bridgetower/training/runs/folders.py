"""Checkpoints in two file formats."""

import contextlib
import json
import pathlib

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_bridgetower.files import parse_checksummed
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_text
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


def checkpoint_name(step, batches):
    """Return the name of a checkpoint.

    Args:
        step: int, number of updates so far.
        batches: int, number of batches after the last update, whose gradients
            are accumulated.
    """
    within = f"-{batches:04d}" if batches else ""
    return f"{PREFIX}{step:09d}{within}"


def read(folder, name=None):
    """Read the arrays and facts of a checkpoint.

    Args:
        folder: path of a checkpoint.
        name: str, its name in errors. By default the path.

    Returns:
        `(arrays, facts)`, as in `RunFolder.write`, but always NumPy arrays.

    Raises:
        CheckpointError: a file is missing or changed.
    """
    folder = pathlib.Path(folder)
    try:
        facts = read_facts(folder)
        sums = folder_sums(folder)
        saved = facts["sha256"]
        changed = {n for n in {*sums, *saved} if sums.get(n) != saved.get(n)}
        if changed:
            raise ValueError(f"the sums of {sorted(changed)} are others")
        arrays = STORES[facts["store"]].read(folder)
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
    return parse_checksummed(read_text(folder / MANIFEST, LARGEST_ASSET))


STATE = "state.safetensors"
# Dtypes that safetensors does not accept from NumPy are stored as integers.
_STORED_AS = {"bfloat16": "uint16"}
_TYPES = "types"


class OneFile:
    """A safetensors file, written by process 0."""

    name = "file"

    @contextlib.contextmanager
    def values(self, strategy, model):
        """Yield a function from a variable to its array, for the context."""
        strategy.share_accumulated(model.optimizer)
        with strategy.gathered(model), strategy.summed(model.metrics_variables):
            yield strategy.whole

    def write(self, folder, arrays, is_chief):
        """Write arrays into an empty folder. Every process must call it.

        Args:
            folder: path.
            arrays: dict from name to array, as the function of `values`
                returns them.
            is_chief: bool, True in process 0.

        Raises:
            OSError: the disk is full or not writable.
        """
        if not is_chief:
            return
        types = {name: str(a.dtype) for name, a in arrays.items()}
        stored = {
            name: np.asarray(a, order="C").view(
                _STORED_AS.get(types[name], a.dtype)
            )
            for name, a in arrays.items()
        }
        content = safetensors.numpy.save(stored, {_TYPES: json.dumps(types)})
        (folder / STATE).write_bytes(content)

    def read(self, folder):
        """Read the arrays, as dict from name to NumPy array.

        Raises:
            OSError, SafetensorError, KeyError: files are missing or damaged.
        """
        with safetensors.safe_open(folder / STATE, "numpy") as file:
            types = parse_json(file.metadata()[_TYPES])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        return {
            name: array.view(types[name])
            if types[name] in _STORED_AS
            else array
            for name, array in arrays.items()
        }


class TorchDistributed:
    """PyTorch's distributed format. Each process writes its parts."""

    name = "torch"

    @contextlib.contextmanager
    def values(self, strategy, model):
        def value(variable):
            part = strategy.find_part(model, variable)
            if part is None:
                return keras.ops.convert_to_numpy(variable)
            return part

        with strategy.summed(model.metrics_variables):
            yield value

    def write(self, folder, arrays, is_chief):
        # What is not divided is that of process 0.
        given = {
            name: self._tensor(a) if isinstance(a, np.ndarray) else a
            for name, a in arrays.items()
            if is_chief or not isinstance(a, np.ndarray)
        }
        with self._errors() as checkpoint:
            checkpoint.save(given, checkpoint_id=self._path(folder))

    def read(self, folder):
        import torch

        path = self._path(folder)
        with self._errors() as checkpoint:
            saved = checkpoint.FileSystemReader(path).read_metadata()
            arrays = {
                name: torch.empty(found.size, dtype=found.properties.dtype)
                for name, found in saved.state_dict_metadata.items()
            }
            checkpoint.load(arrays, checkpoint_id=path, no_dist=True)
        return {k: keras.ops.convert_to_numpy(v) for k, v in arrays.items()}

    def _path(self, folder):
        return folder.absolute() / "state"

    @contextlib.contextmanager
    def _errors(self):
        """Yield PyTorch's module; its errors, no `Exception`, are OSErrors."""
        from torch.distributed import checkpoint

        try:
            yield checkpoint
        except checkpoint.CheckpointException as error:
            raise OSError(str(error)) from error

    def _tensor(self, array):
        import torch

        if str(array.dtype) == "bfloat16":
            return torch.from_numpy(array.view("uint16")).view(torch.bfloat16)
        return torch.from_numpy(np.asarray(array, order="C"))


STORES = {store.name: store() for store in (OneFile, TorchDistributed)}
