"""Opens weight files safely, and reads one tensor at a time."""

import pathlib

import ml_dtypes  # A dependency of Keras; teaches NumPy bfloat16.
import safetensors

from keras_bridgetower import files
from keras_bridgetower.convert import torch_pickle
from keras_bridgetower.convert import torch_tensors
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.errors import short_text
from keras_bridgetower.convert.torch_tensors import Foreign
from keras_bridgetower.convert.torch_zip import Archive
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets.needed_files import WEIGHT_FILES
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.presets.safe_files import check_safetensors
from keras_bridgetower.presets.weights_file import is_finite

# How many tensors may share the same stored values: two, since a table that
# two layers share has two names.
MOST_SHARED = 2


class Tensors:
    """The tensors of one file or several, by name.

    Args:
        path: path of the file that errors name.
        shapes: dict from names of tensors to shapes.
        read: callable that takes a name and returns a NumPy array.

    Example:

    ```python
    tensors = open_tensors("model.safetensors")
    tensors.shapes["cross_modal_text_pooler.dense.bias"]  # (768,)
    tensors.read("cross_modal_text_pooler.dense.bias")
    ```
    """

    def __init__(self, path, shapes, read):
        self.path = path
        self.shapes = shapes
        self.read = read

    def with_value(self, name, shape, read):
        """The same tensors, with one added or replaced; `read()` returns it."""
        return Tensors(
            self.path,
            {**self.shapes, name: shape},
            lambda key: read() if key == name else self.read(key),
        )

    def without_prefix(self, prefix):
        """The same tensors; a prefix is removed from the names that have it."""
        names = {name.removeprefix(prefix): name for name in self.shapes}
        if len(names) < len(self.shapes):
            twice = sorted(
                name
                for name in self.shapes
                if names[name.removeprefix(prefix)] != name
            )
            raise ConversionError(
                f"Tensors stand twice, with and without {prefix!r}. Remove "
                "one of each.",
                self.path,
                twice,
            )
        return Tensors(
            self.path,
            {short: self.shapes[name] for short, name in names.items()},
            lambda short: self.read(names[short]),
        )


def check_links(source):
    """Refuse links out of a folder among the files that a conversion reads.

    Args:
        source: `pathlib.Path` of a folder, or of a checkpoint file, which may
            itself be a link.

    Raises:
        ConversionError: there are such links.
    """
    folder = source if source.is_dir() else source.parent
    below = files.Below(folder)
    paths = needed_files.of_checkpoint(source)
    names = [path.name for path in paths if path != source]
    away = [name for name in names if below.leads_out(name)]
    if away:
        raise ConversionError(
            "The files of a folder must lie in it, and these are links that "
            "leave it. Copy the files instead.",
            folder,
            away,
        )


def weight_file(folder):
    """The path of a folder's weight file, or of the index of several."""
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
        ConversionError: the file is damaged, or holds other things than
            tensors.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        return _open_shards(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    state, names = load_pickle(path)
    refuse_code(path, names)
    return state_dict_tensors(path, state)


def read_json(path):
    """Read a JSON file that holds an object.

    Raises:
        ConversionError: the file is absent, damaged or too large, or does not
            hold an object.
    """
    try:
        if not path.is_file():  # A pipe would be waited for.
            raise OSError("it is no regular file")
        values = files.read_json(path, LARGEST_ASSET)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"The file must be readable JSON: {error!s:.200}. Fetch it again.",
            path,
        ) from error
    if not isinstance(values, dict):
        raise ConversionError("The file must hold one JSON object.", path)
    return values


def _open_safetensors(path):
    try:
        check_safetensors(path)
        file = safetensors.safe_open(path, framework="np")
        shapes = {
            name: tuple(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118 (no mapping)
        }
    except Exception as error:  # The library's error, OSError, UnicodeError.
        raise ConversionError(
            f"The file must be intact safetensors: {error!s:.200}. Fetch it "
            "again.",
            path,
        ) from error

    def read(name):
        try:
            tensor = file.get_tensor(name)
            if tensor.dtype == ml_dtypes.bfloat16:
                tensor = tensor.astype("float32")
            return tensor
        except Exception as error:  # A type that NumPy does not know.
            raise ConversionError(
                f"The tensor must be readable: {error!s:.200}.", path, [name]
            ) from error

    return Tensors(path, shapes, read)


def _open_shards(path):
    where = read_json(path).get("weight_map")
    names = list(where.values()) if isinstance(where, dict) else [None]
    bad = [
        name
        for name in names
        if not isinstance(name, str)
        or pathlib.PurePath(name).name != name
        or not (path.parent / name).is_file()
        or name.endswith(".json")
    ]
    if bad or not names:
        raise ConversionError(
            "An index must have a `weight_map` from tensors to files that lie "
            "beside it. Fetch the missing ones.",
            path,
            sorted(set(map(repr, bad))),
        )
    shards = {name: open_tensors(path.parent / name) for name in set(names)}
    wrong = [k for k, name in where.items() if k not in shards[name].shapes]
    for name, shard in shards.items():
        wrong += [k for k in shard.shapes if where.get(k) != name]
    if wrong:
        raise ConversionError(
            "An index and its files must name the same tensors.", path, wrong
        )
    return Tensors(
        path,
        {key: shards[name].shapes[key] for key, name in where.items()},
        lambda key: shards[where[key]].read(key),
    )


def load_pickle(path):
    """Read a file of `torch.save` without running any code from it.

    Args:
        path: `pathlib.Path` of the file.

    Returns:
        `(content, names)`: the object in the file, with a
        `torch_tensors.Tensor` for each tensor; and the names of the classes
        and functions that the file refers to and that were not loaded.

    Raises:
        ConversionError: the file is damaged, or has another format.
    """
    return torch_pickle.load(Archive(path))


def refuse_code(path, names):
    """Refuse a file that refers to classes or functions.

    Raises:
        ConversionError: `names` is not empty.
    """
    if names:
        raise ConversionError(
            f"The file asks for the code of {short_text(names[0])}, which is "
            "not loaded: it could do anything. Save its state dict alone, of "
            "tensors and plain values.",
            path,
            names,
        )


def state_dict_tensors(path, state):
    """The `Tensors` of a state dict that was read by `load_pickle`.

    Raises:
        ConversionError: it holds other objects than tensors, or tensors whose
            elements are not all stored.
    """
    if not isinstance(state, dict):
        raise ConversionError("The file must hold a state dict.", path)
    parts = (*state.keys(), *state.values())
    refuse_code(path, [x.name for x in parts if isinstance(x, Foreign)])
    bad = [
        f"{name}: {type(value).__name__} {problem}".rstrip()
        for name, value in state.items()
        if (problem := _problem(name, value)) is not None
    ]
    if bad or not state:
        raise ConversionError(
            "A state dict must hold dense tensors, each with a value of its "
            "own for each element.",
            path,
            bad,
        )
    storages = {t.storage.key: t.storage.nbytes for t in state.values()}
    taken, held = sum(t.nbytes for t in state.values()), sum(storages.values())
    if taken > MOST_SHARED * held:
        raise ConversionError(
            "Two tensors may share stored values, as tied weights do, but not "
            "more. Save each tensor with values of its own.",
            path,
            [f"{taken} bytes of tensors, {held} bytes stored"],
        )
    return Tensors(
        path,
        {name: tensor.shape for name, tensor in state.items()},
        lambda name: state[name].read(),
    )


def _problem(name, value):
    """The reason why a state dict may not have this entry, or None."""
    if isinstance(name, str) and isinstance(value, torch_tensors.Tensor):
        return value.problem()
    return ""


def check_finite(array, path, names):
    """Refuse NaN and infinity.

    Args:
        array: NumPy array with the dtype of its variable.
        path: path of the file, for the error.
        names: list of str, the tensors from which it was made.

    Raises:
        ConversionError: the array holds NaN or infinity.
    """
    if not is_finite(array):
        raise ConversionError(
            "A tensor must be finite, also as the type of its variable. Pass "
            "`allow_nonfinite=True` to load it as it is.",
            path,
            names,
        )
