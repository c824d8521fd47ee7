"""Reads the weight files of presets, and rewrites saved ones."""

import pathlib

import h5py
import keras
import numpy as np

from keras_bridgetower.backend import layer_records

WEIGHTS = "model.weights.h5"
SHARDED = "model.weights.json"
TASK = "task.json"
TASK_WEIGHTS = "task.weights.h5"


def array_types(path):
    """Return the dtypes of the arrays in a weight file, by name.

    Raises:
        Exception: of any type, from h5py: the file is truncated or damaged,
            or contains links or arrays that are compressed or stored
            elsewhere.
    """
    types = {}

    def note(name, link):
        # Soft and external links lead to other groups and files.
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        item = file[name]
        if isinstance(item, h5py.Dataset):
            # Chunks may be compressed, so a small file could fill the memory.
            # Unwritten and external arrays are not in this file. A number may
            # take fewer bytes than NumPy's.
            size = item.size * item.id.get_type().get_size()
            stored = item.id.get_storage_size()
            if item.chunks or item.external or stored != size:
                raise ValueError(f"{name!r} is not stored plainly")
            types[name] = item.dtype

    with h5py.File(path) as file:
        file.visititems_links(note)
    return types


def load(backbone, folder):
    """Load a backbone's weights from a `PresetFolder`.

    Raises:
        PresetError: weights do not belong to the backbone, or are not finite.
    """
    file = WEIGHTS if folder.has(WEIGHTS) else SHARDED
    path, types = folder.path(file), []
    with folder.reading(file):
        for name in [WEIGHTS] if file == WEIGHTS else _shards(folder):
            types += array_types(folder.path(name)).values()
        with _Received() as received:
            backbone.load_weights(str(path))
        received.check(backbone.weights, types)


def _shards(folder):
    """List the files of weights that Keras saved in several."""
    names = set()
    for value in folder.json(SHARDED)["weight_map"].values():
        names.update(value if isinstance(value, list) else [value])
    return sorted(names)


def load_heads(heads, names, folder):
    """Load heads from a preset folder.

    Args:
        heads: `HeadSet`.
        names: list of str, the heads to load. The file may have others.
        folder: `PresetFolder`.

    Raises:
        PresetError: weights do not belong to the heads, or are not finite.
    """
    path = folder.path(TASK_WEIGHTS)
    with folder.reading(TASK):
        saved = folder.json(TASK, {}).get("config", {})
        quantized = saved.get(layer_records.QUANTIZED, {})
        for name in names:
            layer_records.quantize_as(heads[name], quantized.get(name))
    with folder.reading(TASK_WEIGHTS):
        stored = array_types(path).items()
        types = [kind for k, kind in stored if k.partition("/")[0] in names]
        with _Received() as received:
            heads.load(path, [name for name in heads if name not in names])
        weights = [weight for name in names for weight in heads[name].weights]
        received.check(weights, types)


class _Received(keras.StatelessScope):
    """A scope that records which variables this thread assigns."""

    def __init__(self):
        super().__init__()
        self._assigned = []

    def add_update(self, update):
        variable, value = update
        self._assigned.append(id(variable))
        # Keeping values until the end would take twice the memory.
        self.__exit__()
        variable.assign(value)
        self.__enter__()

    def check(self, variables, types):
        """Check that each variable got exactly one value, a finite one.

        Args:
            variables: list of the variables of a model.
            types: list of the dtypes of the arrays in the file. Values for
                other variables belong to layers that the model never runs.
        """
        received = set(self._assigned)
        if not (
            len(received) == len(self._assigned) == len(types)
            and {id(variable) for variable in variables} <= received
            and types.count(np.int8)
            == sum(variable.dtype == "int8" for variable in variables)
        ):
            raise ValueError(
                f"there must be one array of the right type for each of the "
                f"{len(variables)} weights. Received: {len(types)} arrays, "
                f"{len(self._assigned)} of them for these weights"
            )
        for variable in variables:
            if not is_finite(keras.ops.convert_to_numpy(variable)):
                raise ValueError(f"Weights must be finite: {variable.path}")


def is_finite(array):
    """Return True if an array of any number type has no NaN and no infinity."""
    return bool(np.isfinite(array).all())


def make_dense(path):
    """Rewrite a file of quantized weights in HDF5's denser layout.

    Otherwise the headers of scales and biases take as much space as the
    integers of a small model.

    Args:
        path: path of a weight file that was just saved. It may be missing.
    """
    path = pathlib.Path(path)
    if path.is_file() and np.int8 in array_types(path).values():
        dense = path.with_suffix(".dense.h5")
        rewrite(path, dense)
        dense.replace(path)


def rewrite(path, new, change=lambda name, values: {"data": values}):
    """Copy a weight file in HDF5's newer, denser layout.

    In the older one the headers of many small arrays take a sixth of a file.

    Args:
        path: path of the file.
        new: path of the copy.
        change: callable from the name of an array and its values to the
            arguments of `create_dataset` for its copy.
    """
    with h5py.File(path) as source, h5py.File(new, "w", libver="latest") as to:
        to.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                copied = to.create_dataset(name, **change(name, item[()]))
            else:
                copied = to.require_group(name)
            copied.attrs.update(item.attrs)

        source.visititems(copy)
