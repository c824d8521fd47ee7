"""File formats of checkpoints: safetensors, or Orbax for several hosts."""

import contextlib
import json

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_bridgetower.files import parse_json

STATE = "state.safetensors"
# Dtypes that safetensors does not accept from NumPy are stored as integers.
_STORED_AS = {"bfloat16": "uint16"}
_TYPES = "types"


class OneFile:
    """One safetensors file, written by process 0."""

    name = "file"

    @contextlib.contextmanager
    def values(self, strategy, model):
        """A context that yields a function from a variable to its array."""
        with strategy.gathered(model), strategy.summed(model.metrics_variables):
            yield keras.ops.convert_to_numpy

    def write(self, folder, arrays, is_chief):
        """Write arrays into an empty folder. Every process must call it.

        Args:
            folder: path.
            arrays: dict from name to array, made by the function of `values`.
            is_chief: bool, whether this is process 0.

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
            OSError, ValueError, KeyError: files are missing or damaged.
        """
        try:
            with safetensors.safe_open(folder / STATE, "numpy") as file:
                types = parse_json(file.metadata()[_TYPES])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except safetensors.SafetensorError as error:
            raise ValueError(str(error)) from error
        return {
            name: array.view(types[name])
            if types[name] in _STORED_AS
            else array
            for name, array in arrays.items()
        }


class Orbax:
    """Orbax's format, in which each process of JAX writes its own shards."""

    name = "orbax"

    @contextlib.contextmanager
    def values(self, strategy, model):
        yield lambda variable: variable.value

    def write(self, folder, arrays, is_chief):
        with _orbax() as orbax:
            try:
                orbax.save(self._path(folder), arrays)
            except ValueError as error:
                # Orbax raises ValueError for errors of the disk.
                raise OSError(str(error)) from error

    def read(self, folder):
        from orbax.checkpoint import RestoreArgs

        path = self._path(folder)
        with _orbax() as orbax:
            names = orbax.metadata(path).item_metadata.tree
            whole = {n: RestoreArgs(restore_type=np.ndarray) for n in names}
            return orbax.restore(path, restore_args=whole)

    def _path(self, folder):
        return folder.absolute() / "state"


def _orbax():
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError(
            "Checkpoints of JAX on several hosts are written by Orbax: "
            "`pip install keras-bridgetower[orbax]`."
        ) from error
    return orbax.checkpoint.PyTreeCheckpointer()


STORES = {store.name: store() for store in (OneFile, Orbax)}
