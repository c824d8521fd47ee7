"""Opens weight files safely, and reads one tensor at a time."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes  # A dependency of Keras; adds bfloat16 to NumPy.
import safetensors

from keras_bridgetower import files
from keras_bridgetower.convert import torch_files
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.errors import short_plain
from keras_bridgetower.presets.needed_files import WEIGHT_FILES
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.presets.safe_files import check_safetensors

# Number of tensors that may share stored values, as tables with tied weights.
MOST_SHARED = 2


class Tensors(NamedTuple):
    """The tensors of one file or several, by name.

    Args:
        path: path of the file that errors name.
        shapes: dict from names of tensors to shapes.
        read: callable that takes a name and returns a NumPy array.
    """

    path: object
    shapes: dict
    read: Callable

    def without_prefix(self, prefix):
        """Remove a prefix from the names that have it."""
        names = {name.removeprefix(prefix): name for name in self.shapes}
        return Tensors(
            self.path,
            {short: self.shapes[name] for short, name in names.items()},
            lambda short: self.read(names[short]),
        )


def check_links(source):
    """Reject links in a checkpoint's folder that lead out of it.

    Args:
        source: `pathlib.Path` of a folder, or of a checkpoint file, which may
            itself be a link.
    """
    folder = source if source.is_dir() else source.parent
    below = files.Below(folder)
    paths = needed_files.checkpoint_files(source)
    away = [
        path.name
        for path in paths
        if path != source and below.leads_out(path.name)
    ]
    if away:
        raise ConversionError(
            "A folder of weights must not have links that leave it. Copy the "
            "files instead.",
            folder,
            away,
        )


def weight_file(folder):
    """Return the path of a folder's weight file, or of the index of several."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ConversionError(
        f"A folder of weights must hold one of {', '.join(WEIGHT_FILES)}.",
        folder,
        sorted(path.name for path in folder.iterdir()),
    )


def open_tensors(path):
    """Open a file of tensors without reading them.

    Args:
        path: path of a `.safetensors` file, of a pickled `.bin` file, or of
            the `.index.json` of several such files.

    Returns:
        `Tensors`.

    Raises:
        ConversionError: the file is damaged, or has objects other than
            tensors.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return _open_shards(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    state, names = torch_files.load(path)
    reject_code(path, names)
    return state_dict_tensors(path, state)


def read_json(path):
    """Read a JSON file that holds an object, as `files.read_json`."""
    with converting("Fetch it again. It must be readable JSON", path):
        values = files.read_json(path, LARGEST_ASSET)
    if not isinstance(values, dict):
        raise ConversionError("The file must hold one JSON object.", path)
    return values


def _open_safetensors(path):
    with converting("Fetch it again. It must be intact safetensors", path):
        check_safetensors(path)
        file = safetensors.safe_open(path, framework="np")
        shapes = {
            name: tuple(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118 (no mapping)
        }

    def read(name):
        tensor = file.get_tensor(name)
        narrow = tensor.dtype == ml_dtypes.bfloat16
        return tensor.astype("float32") if narrow else tensor

    return Tensors(path, shapes, read)


def _open_shards(path):
    try:
        names = sorted(set(read_json(path)["weight_map"].values()))
        elsewhere = [
            name
            for name in names
            if pathlib.PurePath(name).name != name or name.endswith(".json")
        ]
    except (AttributeError, KeyError, TypeError):
        names = elsewhere = []
    if elsewhere or not names:
        raise ConversionError(
            "An index must have a `weight_map` from tensors to files beside "
            "it.",
            path,
            elsewhere,
        )
    # Tensors that the files lack are reported later.
    places = {}
    for name in names:
        shard = open_tensors(path.parent / name)
        places |= dict.fromkeys(shard.shapes, shard)
    return Tensors(
        path,
        {key: shard.shapes[key] for key, shard in places.items()},
        lambda key: places[key].read(key),
    )


def reject_code(path, names):
    """Raise an error if `names` of classes or functions is not empty."""
    if names:
        raise ConversionError(
            f"The file needs the code of {short_plain(names[0])}, which is "
            "not loaded, because it could do anything. Save only its state "
            "dict, of tensors and plain values.",
            path,
            names,
        )


def state_dict_tensors(path, state):
    """Return the `Tensors` of a state dict that `torch_files.load` read.

    Raises:
        ConversionError: it has objects other than tensors, or tensors whose
            elements are not all stored.
    """
    if not isinstance(state, dict):
        raise ConversionError("The file must hold a state dict.", path)
    parts = (*state.keys(), *state.values())
    reject_code(
        path, [x.name for x in parts if isinstance(x, torch_files.Foreign)]
    )
    bad = [
        f"{name}: {type(value).__name__} {problem}".rstrip()
        for name, value in state.items()
        if (problem := _problem(name, value)) is not None
    ]
    if bad or not state:
        raise ConversionError(
            "A state dict must hold dense tensors with one stored value for "
            "each element.",
            path,
            bad,
        )
    storages = {t.storage.key: t.storage.nbytes for t in state.values()}
    size, stored = sum(t.nbytes for t in state.values()), sum(storages.values())
    if size > MOST_SHARED * stored:
        raise ConversionError(
            "At most two tensors may share stored values, as tied weights do. "
            "Save each tensor with values of its own.",
            path,
            [f"{size} bytes of tensors, {stored} bytes stored"],
        )
    return Tensors(
        path,
        {name: tensor.shape for name, tensor in state.items()},
        lambda name: state[name].read(),
    )


def _problem(name, value):
    """Return the reason why a state dict may not have this entry, or None."""
    if isinstance(name, str) and isinstance(value, torch_files.Tensor):
        return value.problem()
    return ""
