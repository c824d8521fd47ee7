"""Which files of a model are read, and which of them a folder lacks."""

import json
import pathlib

from keras_bridgetower.files import read_text
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

# Beside weights of another library; conversions read no others.
SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
# In the order in which a folder is searched.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Each is a whole tokenizer.
TOKENIZERS = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"vocab.txt"})
TOKENIZER = "a tokenizer"
CONFIG = "config.json"


def beside_weights(folder, names):
    """The files to be read before the weights.

    Args:
        folder: `pathlib.Path`, where config.json already lies.
        names: set of str, all files of a repository.

    Returns:
        list of str.
    """
    if is_keras(folder):
        return sorted(n for n in names if n.endswith((".json", ".txt")))
    indices = {n for n in _preferred(names) if n.endswith(".json")}
    return sorted(names.intersection(SIDE_FILES) | indices)


def weights(folder, names):
    """The files of weights, and what else only lists of files tell.

    Args:
        folder: `pathlib.Path`, where the files beside the weights lie.
        names: set of str, all files that there are.

    Returns:
        list of str, the largest last; lists may name what is not there.
    """
    if not is_keras(folder):
        return _foreign_weights(folder, names)
    found = {name for name in names if name.endswith((".h5", ".safetensors"))}
    # A manifest may also list files that are only checked.
    found.update(_entries(folder / "manifest.json", "sha256"))
    shards = _entries(folder / "model.weights.json", "weight_map")
    found.update(shards.values())
    return sorted(found, key=lambda n: (n.startswith("model.weights"), n))


def lacking(folder):
    """What a folder lacks of a whole model.

    Args:
        folder: `pathlib.Path`, with a config.json.

    Returns:
        list of str: names of files, or words where several would do.
    """
    names = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }
    found = weights(folder, names)
    if is_keras(folder):
        whole = any(name.startswith("model.weights") for name in found)
        tokenized = True  # Where it has one, its weights came after it.
    else:
        whole = bool(found)
        tokenized = any(tokenizer <= names for tokenizer in TOKENIZERS)
    lacks = sorted(set(found) - names) + ["weights"] * (not whole)
    return lacks + [TOKENIZER] * (not tokenized)


def of_checkpoint(source):
    """All files from which a checkpoint of another library is converted.

    Args:
        source: `pathlib.Path` of a file, or of a `transformers` folder.

    Returns:
        list of `pathlib.Path`.
    """
    if source.is_file():
        folder, found = source.parent, [source.name]
    else:
        names = {path.name for path in source.iterdir() if path.is_file()}
        folder, found = source, _foreign_weights(source, names)
    plain = [n for n in found if pathlib.PurePath(n).name == n]
    paths = [folder / n for n in dict.fromkeys([*plain, *SIDE_FILES])]
    return [path for path in paths if path.is_file()]


def _foreign_weights(folder, names):
    """One file of weights, or an index and all that it names."""
    found = _preferred(names)
    for index in [name for name in found if name.endswith(".json")]:
        found += _entries(folder / index, "weight_map").values()
    return list(dict.fromkeys(found))


def _preferred(names):
    return [name for name in WEIGHT_FILES if name in names][:1]


def is_keras(folder):
    """Whether a folder's configuration is one of Keras, and so its weights."""
    return "registered_name" in _values(folder / CONFIG)


def _entries(path, key):
    """An object of strings in a JSON file; empty where it is no such."""
    entries = _values(path).get(key)
    entries = entries.items() if isinstance(entries, dict) else ()
    return {k: value for k, value in entries if isinstance(value, str)}


def _values(path):
    """A JSON file; empty where it is no object."""
    try:
        values = json.loads(read_text(path, LARGEST_ASSET))
    except (OSError, ValueError, RecursionError):
        return {}  # Whoever reads the file says what is wrong with it.
    return values if isinstance(values, dict) else {}
