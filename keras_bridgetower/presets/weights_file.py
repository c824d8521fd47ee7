"""Reads the weight files of presets directly into the variables of a model.

Keras walks through a weight file group by group and copies what it reads,
which takes 2 to 3 s for the 1.3 GB of a base model and twice the memory. With
the index beside the file, which gives the place of each variable, it takes
0.9 s. The index is used only if a manifest covers it; otherwise Keras reads
the file.
"""

import math

import h5py
import keras
import ml_dtypes
import numpy as np

from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend import uninitialized
from keras_bridgetower.presets.errors import PresetError

WEIGHTS = "model.weights.h5"
SHARDED = "model.weights.json"
INDEX = "weights_index.json"
TASK = "task.json"
TASK_WEIGHTS = "task.weights.h5"
# Bytes that are checked while they are still in the processor's cache.
_CHUNK = 2**20


def array_places(path, folder):
    """Find the place of each array in a weight file.

    Args:
        path: `pathlib.Path` of the file.
        folder: path of the preset folder, for errors.

    Returns:
        dict from the name of each array to `[offset, shape, dtype]`. The
        offset is in bytes, or None if only Keras can read the array.

    Raises:
        PresetError: the file is truncated or damaged, or contains links or
            arrays that are compressed or stored elsewhere.
    """
    found, names = {}, []

    def note(name, info):
        if info.type == h5py.h5o.TYPE_DATASET:
            names.append(name)

    try:
        size = path.stat().st_size
        with h5py.File(path) as file:
            file.id.links.visit(_check_link, info=True)
            # Twice as fast as `visititems`, which makes an object for each
            # group.
            h5py.h5o.visit(file.id, note, info=True)
            for name in names:
                dataset = h5py.h5o.open(file.id, name)
                found[name.decode()] = _array_place(name, dataset)
        for name, (offset, shape, dtype) in found.items():
            if offset and offset + _bytes(shape, dtype) > size:
                raise ValueError(f"{name} ends beyond the file")
    # h5py raises KeyError, OSError, RuntimeError and others.
    except Exception as error:
        raise PresetError(
            f"{path.name} is no complete HDF5 file of plainly stored weights. "
            "Fetch the preset again, or save the model anew with "
            "`save_to_preset`.",
            folder,
            [f"{type(error).__name__}: {error!s:.200}"],
        ) from error
    return found


def _check_link(name, info):
    # Soft and external links lead to other groups and files.
    if info.type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name!r} is a link")


def _array_place(name, dataset):
    """Return offset, shape and dtype of a dataset that is stored plainly."""
    shape, dtype = list(dataset.shape), dataset.dtype
    properties = dataset.get_create_plist()
    # Chunks may be compressed, and then a small file can fill the memory.
    # Arrays of other layouts, and unwritten ones, are not in this file.
    plain = properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if (
        not plain
        or properties.get_external_count()
        or dtype.kind not in "fiubV"
        or dataset.get_storage_size() != _bytes(shape, dtype)
    ):
        raise ValueError(f"{name!r} is not stored plainly")
    # Keras stores types that NumPy lacks with an attribute.
    marked = h5py.h5a.get_num_attrs(dataset)
    return [None if marked else dataset.get_offset(), shape, dtype.str]


def _bytes(shape, dtype):
    return math.prod(shape) * np.dtype(dtype).itemsize


def by_path(weights, image_encoder):
    """Return variables by path, without the name that a saved CLIP adds."""
    prefix = f"{image_encoder.name}_"
    return {v.path.removeprefix(prefix): v for v in weights}


def load(backbone, folder):
    """Load a backbone's weights from a preset folder.

    Args:
        backbone: a backbone of the preset's architecture.
        folder: `PresetFolder`.

    Raises:
        PresetError: weights do not belong to the backbone, or are not finite.
    """
    if folder.sealed and folder.has(INDEX) and folder.has(WEIGHTS):
        _load_by_index(backbone, folder)
        return
    file = WEIGHTS if folder.has(WEIGHTS) else SHARDED
    names = [WEIGHTS] if file == WEIGHTS else _shards(folder)
    path, paths = folder.path(file), [folder.path(name) for name in names]
    places = [
        place
        for shard in paths
        for place in array_places(shard, folder.root).values()
    ]
    with folder.reading(file), Received() as received:
        backbone.load_weights(str(path))
    received.assign_to(backbone.weights, places, folder, file)


def _shards(folder):
    """List the files of weights that Keras saved in several."""
    with folder.reading(SHARDED):
        names = set()
        for value in folder.json(SHARDED)["weight_map"].values():
            names.update(value if isinstance(value, list) else [value])
        return sorted(names)


def _load_by_index(backbone, folder):
    path, index = folder.path(WEIGHTS), folder.json(INDEX)
    variables = by_path(backbone.weights, backbone.image_encoder)
    with folder.reading(INDEX):
        checked = _checked_index(index, variables, path, folder)
    blocks = uninitialized.Blocks()
    with open(path, "rb") as file, folder.reading(WEIGHTS):
        for name, (offset, shape, dtype) in checked.items():
            value = blocks.empty(shape, dtype)
            file.seek(offset)
            finite = _fill(file, value)
            variable = variables[name]
            uninitialized.give(variable, value)
            if not (finite and _still_finite(variable, dtype)):
                raise _nonfinite(folder.root, WEIGHTS, [name])


def _checked_index(index, variables, path, folder):
    """Return the index if it belongs to the model and to the file."""
    odd = sorted(set(index) ^ set(variables))
    if odd:
        raise PresetError(
            "The preset's weights must belong to its config.json, and the "
            f"index has {len(odd)} other names.",
            folder.root,
            odd,
        )
    places = array_places(path, folder.root).values()
    stored = {_key(place): place for place in places}
    found = {name: stored.get(_key(place)) for name, place in index.items()}
    wrong = [
        name
        for name, place in found.items()
        if not place
        or place[1] != list(variables[name].shape)
        or is_int8(place[2]) != is_int8(variables[name].dtype)
    ]
    if wrong or len({place[0] for place in found.values()}) < len(found):
        raise PresetError(
            f"{INDEX} must give the place of every variable in {WEIGHTS}, "
            "each once. Save the model anew with `save_to_preset`.",
            folder.root,
            wrong,
        )
    return found


def is_int8(dtype):
    """Return True for the dtype of quantized weights."""
    return np.dtype(dtype) == np.int8


def _key(place):
    offset, shape, dtype = place
    return offset, tuple(shape), dtype


def _fill(file, value):
    """Read an array; return True if all its numbers are finite."""
    content = value.reshape(-1)
    step = max(_CHUNK // value.itemsize, 1)
    finite = True
    for start in range(0, content.size, step):
        part = content[start : start + step]
        file.readinto(part.view("uint8"))
        finite = finite and is_finite(part)
    return finite


def is_finite(array):
    """Return True if an array of any number type has no NaN and no infinity."""
    if array.dtype.kind in "iub":
        return True
    if array.dtype in (np.float32, np.float64):
        # One product costs a third of looking at each number; large numbers
        # may make it infinite. The order of axes does not matter, and another
        # one than in memory would copy.
        flat = array.ravel(order="K")
        with np.errstate(all="ignore"):
            if math.isfinite(np.dot(flat, flat)):
                return True
    return bool(np.isfinite(array).all())


def _still_finite(variable, dtype):
    """Return True if a cast to a narrower type left finite numbers."""
    own = keras.backend.standardize_dtype(variable.dtype)
    if np.dtype(dtype).kind != "f" or np.dtype(dtype).name == own:
        return True
    return is_finite(_array(variable))


def _array(variable):
    array = keras.ops.convert_to_numpy(variable)
    narrow = array.dtype in (ml_dtypes.bfloat16, np.float16)
    return array.astype("float32") if narrow else array


def _nonfinite(folder, file, names):
    return PresetError(
        f"Weights must be finite, and some in {file} are NaN or infinite. "
        "Save a model whose training did not diverge.",
        folder,
        names,
    )


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
    stored = array_places(path, folder.root).items()
    places = [place for k, place in stored if k.partition("/")[0] in names]
    with folder.reading(TASK_WEIGHTS), Received() as received:
        heads.load(path, [name for name in heads if name not in names])
    weights = [weight for name in names for weight in heads[name].weights]
    received.assign_to(weights, places, folder, TASK_WEIGHTS)


class Received(keras.StatelessScope):
    """A scope that collects the assignments of this thread.

    Args:
        keep: callable from an assigned value to the value to collect.
    """

    def __init__(self, keep=lambda value: value):
        super().__init__()
        self._keep = keep
        self.updates = []

    def add_update(self, update):
        variable, value = update
        self.updates.append((variable, self._keep(value)))

    def assign_to(self, variables, places, folder, file):
        """Assign the values, if each variable got exactly one.

        Args:
            variables: list of the variables of a model.
            places: list of the places of the arrays in the file. Values for
                other variables belong to layers that the model never runs.
            folder: `PresetFolder`, for errors.
            file: str, name of the file.
        """
        received = [id(variable) for variable, _ in self.updates]
        needed = {id(variable) for variable in variables}
        if (
            len(set(received)) < len(received)
            or not needed <= set(received)
            or len(places) != len(received)
            or sum(is_int8(dtype) for _, _, dtype in places)
            != sum(is_int8(variable.dtype) for variable in variables)
        ):
            raise PresetError(
                f"{file} must hold the weights of the model that config.json "
                "and heads.json describe, each once.",
                folder.root,
                [
                    f"{len(places)} arrays, {len(received)} of them for the "
                    "model"
                ],
            )
        while self.updates:
            variable, value = self.updates.pop()
            variable.assign(value)
        wrong = [v.path for v in variables if not is_finite(_array(v))]
        if wrong:
            raise _nonfinite(folder.root, file, wrong)
