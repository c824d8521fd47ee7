"""Reads the weight files of presets directly into the variables of a model.

Keras finds its way through a weight file group by group, and copies what it
reads: the 1.3 GB of a base model take it 2 to 3 s, the index that stands
beside the file and says where each variable lies 0.9 s. The index counts only
where a manifest vouches for it; without one, Keras itself reads the file.
"""

import math

import keras
import ml_dtypes
import numpy as np

from keras_bridgetower.backend import quantization
from keras_bridgetower.backend import uninitialized
from keras_bridgetower.presets import hdf5
from keras_bridgetower.presets.errors import PresetError

WEIGHTS = "model.weights.h5"
SHARDED = "model.weights.json"
INDEX = "weights_index.json"
TASK = "task.json"
TASK_WEIGHTS = "task.weights.h5"
# Bytes that are checked while they are still in the processor's cache.
_CHUNK = 2**20


def by_path(weights, image_encoder):
    """Variables by path, without the name that a saved CLIP puts first."""
    prefix = f"{image_encoder.name}_"
    return {v.path.removeprefix(prefix): v for v in weights}


def load(backbone, folder):
    """Load a backbone's weights from a preset folder.

    Args:
        backbone: a backbone of the preset's architecture.
        folder: `PresetFolder`.

    Raises:
        PresetError: weights that are not those of the backbone, or not
            finite.
    """
    if folder.sealed and folder.has(INDEX) and folder.has(WEIGHTS):
        _load_by_index(backbone, folder)
    elif folder.has(WEIGHTS):
        path = folder.path(WEIGHTS)
        _load_plainly(backbone, path, [path], folder)
    else:
        _load_shards(backbone, folder)


def _load_by_index(backbone, folder):
    path, index = folder.path(WEIGHTS), folder.json(INDEX)
    variables = by_path(backbone.weights, backbone.image_encoder)
    with folder.reading(INDEX):
        checked = _checked_index(index, variables, path, folder)
    blocks = uninitialized.Blocks()
    # Without a buffer, which would only copy.
    with open(path, "rb", buffering=0) as file, folder.reading(WEIGHTS):
        for name, (offset, shape, dtype) in checked.items():
            value = blocks.empty(shape, dtype)
            file.seek(offset)
            finite = _fill(file, value)
            variable = variables[name]
            uninitialized.give(variable, value)
            if not (finite and _still_finite(variable, dtype)):
                raise _nonfinite(folder.root, WEIGHTS, [name])


def _checked_index(index, variables, path, folder):
    """The index, if it is that of the model and of the file."""
    odd = sorted(set(index) ^ set(variables))
    if odd:
        raise PresetError(
            "The preset's weights must be those of its config.json, and the "
            f"index holds {len(odd)} other names.",
            folder.root,
            odd,
        )
    stored = hdf5.array_places(path, folder.root).values()
    by_value = {_key(place): place for place in stored}
    found = {name: by_value.get(_key(place)) for name, place in index.items()}
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
    """Whether a dtype is that of quantized weights, which no cast may make."""
    return np.dtype(dtype) == np.int8


def _key(place):
    offset, shape, dtype = place
    return offset, tuple(shape), dtype


def _fill(file, value):
    """Read an array; whether all its numbers are finite."""
    content = value.reshape(-1)
    step = max(_CHUNK // value.itemsize, 1)
    finite = True
    for start in range(0, content.size, step):
        part = content[start : start + step]
        read = memoryview(part).cast("B")
        while read.nbytes:
            count = file.readinto(read)
            if not count:
                raise EOFError("the file ends before the weight does")
            read = read[count:]
        finite = finite and is_finite(part)
    return finite


def is_finite(array):
    """Whether an array of any number type holds no NaN and no infinity."""
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
    """Whether a cast to a narrower type left finite numbers."""
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


def _load_shards(backbone, folder):
    """Load weights that Keras saved in several files."""
    with folder.reading(SHARDED):
        names = set()
        for value in folder.json(SHARDED)["weight_map"].values():
            names.update(value if isinstance(value, list) else [value])
        shards = [folder.path(name) for name in sorted(names)]
    _load_plainly(backbone, folder.path(SHARDED), shards, folder)


def _load_plainly(backbone, path, files, folder):
    """Load weights as Keras does, and check that all of them came."""
    stored = [hdf5.array_places(file, folder.root) for file in files]
    with folder.reading(path.name), _Received() as received:
        backbone.load_weights(str(path))
    places = [place for found in stored for place in found.values()]
    received.assign_to(backbone.weights, places, folder, path.name)


def load_heads(heads, names, folder):
    """Load heads from a preset folder.

    Args:
        heads: `HeadSet`.
        names: list of str, those of its heads to load. The file may hold
            others.
        folder: `PresetFolder`.

    Raises:
        PresetError: weights that are not those of the heads, or not finite.
    """
    path = folder.path(TASK_WEIGHTS)
    _quantize_heads(heads, names, folder)
    stored = hdf5.array_places(path, folder.root).items()
    places = [place for k, place in stored if k.partition("/")[0] in names]
    with folder.reading(TASK_WEIGHTS), _Received() as received:
        heads.load(path, [name for name in heads if name not in names])
    weights = [weight for name in names for weight in heads[name].weights]
    received.assign_to(weights, places, folder, TASK_WEIGHTS)


def _quantize_heads(heads, names, folder):
    """Quantize those heads that were saved quantized."""
    with folder.reading(TASK):
        saved = folder.json(TASK, {}).get("config", {})
        quantized = saved.get(quantization.QUANTIZED, {})
        for name in names:
            quantization.quantize_as(heads[name], quantized.get(name))


class _Received(keras.StatelessScope):
    """A scope, of this thread alone, that keeps what is assigned in it."""

    def __init__(self):
        super().__init__()
        self._updates = []

    def add_update(self, update):
        self._updates.append(update)

    def assign_to(self, variables, places, folder, file):
        """Give variables what came for them, if it came once for each.

        Args:
            variables: list of the variables of a model.
            places: list of the places of the arrays in the file. What comes
                for others than the variables is of layers that the model
                never runs.
            folder: `PresetFolder`, for errors.
            file: str, name of the file.
        """
        came = [id(variable) for variable, _ in self._updates]
        wanted = {id(variable) for variable in variables}
        if (
            len(set(came)) < len(came)
            or not wanted <= set(came)
            or len(places) != len(came)
            or sum(is_int8(dtype) for _, _, dtype in places)
            != sum(is_int8(variable.dtype) for variable in variables)
        ):
            raise PresetError(
                f"{file} must hold the weights of the model that config.json "
                "and heads.json describe, each once.",
                folder.root,
                [f"{len(places)} arrays, {len(came)} of them for the model"],
            )
        while self._updates:
            variable, value = self._updates.pop()
            variable.assign(value)
        wrong = [v.path for v in variables if not is_finite(_array(v))]
        if wrong:
            raise _nonfinite(folder.root, file, wrong)
