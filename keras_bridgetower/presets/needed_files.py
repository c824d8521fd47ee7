"""Lists the files that a model needs, and missing ones."""

import pathlib

from keras_bridgetower.files import MANIFEST
from keras_bridgetower.files import read_json
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

# Files that conversions read besides the weights of another library.
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
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
)
# Weight files of other libraries. The first one that exists is used.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Each set is a complete tokenizer.
TOKENIZERS = (
    {"tokenizer.json"},
    {"vocab.json", "merges.txt"},
    *({name} for name in SIDE_FILES if name.endswith((".model", "vocab.txt"))),
)
TOKENIZER = "a tokenizer"
CONFIG = "config.json"


def beside_weights(folder, names):
    """List the files to download before the weights.

    Args:
        folder: `pathlib.Path` with the config.json of the repository.
        names: set of str, all files of the repository.
    """
    if is_keras(folder):
        return sorted(n for n in names if n.endswith((".json", ".txt")))
    indices = {n for n in _preferred(names) if n.endswith(".json")}
    return sorted(names.intersection(SIDE_FILES) | indices)


def weights(folder, names):
    """List the weight files, and files that a manifest or an index names.

    Args:
        folder: `pathlib.Path` with the files of `beside_weights`.
        names: set of str, all files of the repository or folder.

    Returns:
        list of str, the weights of the backbone last. A manifest or an index
        may name files that do not exist.
    """
    if not is_keras(folder):
        return _foreign_weights(folder, names)
    found = {name for name in names if name.endswith((".h5", ".safetensors"))}
    # A manifest may also list files that are only checked.
    found.update(_entries(folder / MANIFEST, "sha256"))
    shards = _entries(folder / "model.weights.json", "weight_map")
    found.update(shards.values())
    return sorted(found, key=lambda n: (n.startswith("model.weights"), n))


def lacking(folder):
    """List the files that a folder lacks for a complete model.

    Args:
        folder: `pathlib.Path`, with a config.json.

    Returns:
        list of str: names of files, or "weights" or "a tokenizer" if
        one of several sets of files is needed.
    """
    paths = filter(pathlib.Path.is_file, folder.rglob("*"))
    names = {path.relative_to(folder).as_posix() for path in paths}
    found = weights(folder, names)
    if is_keras(folder):
        whole = any(name.startswith("model.weights") for name in found)
        # A tokenizer is downloaded before the weights, if there is one.
        tokenized = True
    else:
        whole = bool(found)
        tokenized = any(tokenizer <= names for tokenizer in TOKENIZERS)
    lacks = sorted(set(found) - names) + ["weights"] * (not whole)
    return lacks + [TOKENIZER] * (not tokenized)


def model_files(folder):
    """List the paths of all files that a model in a folder is read from.

    Other folders in it, which may be large, are not walked.

    Args:
        folder: `pathlib.Path`.
    """
    if not is_keras(folder):
        return checkpoint_files(folder)
    names = _entries(folder / MANIFEST, "sha256")
    paths = [folder / name for name in (*names, MANIFEST)]
    if not names:
        paths = [*folder.iterdir(), *(folder / "assets").rglob("*")]
    return [path for path in paths if path.is_file()]


def checkpoint_files(source):
    """List the paths of all files that the conversion of a checkpoint reads.

    Args:
        source: `pathlib.Path` of a file, or of a `transformers` folder.
    """
    if source.is_file():
        folder, found = source.parent, [source.name]
    else:
        names = [name for name in WEIGHT_FILES if (source / name).is_file()]
        folder, found = source, _foreign_weights(source, names)
    plain = [n for n in found if pathlib.PurePath(n).name == n]
    paths = [folder / n for n in dict.fromkeys([*plain, *SIDE_FILES])]
    return [path for path in paths if path.is_file()]


def _foreign_weights(folder, names):
    """List the weight file, or an index and the files that it names."""
    found = _preferred(names)
    for index in [name for name in found if name.endswith(".json")]:
        found += _entries(folder / index, "weight_map").values()
    return list(dict.fromkeys(found))


def _preferred(names):
    """Return a list of the first of `WEIGHT_FILES` that exists."""
    return [name for name in WEIGHT_FILES if name in names][:1]


def is_keras(folder):
    """Return True if a folder has a configuration of Keras."""
    return "registered_name" in _values(folder / CONFIG)


def _entries(path, key):
    """Return the dict of strings under a key of a JSON file, or {}."""
    entries = _values(path).get(key)
    entries = entries.items() if isinstance(entries, dict) else ()
    return {k: value for k, value in entries if isinstance(value, str)}


def _values(path):
    """Return the dict in a JSON file, or {}."""
    try:
        values = read_json(path, LARGEST_ASSET)
    except (OSError, ValueError):
        return {}  # The reader of the file will report the damage.
    return values if isinstance(values, dict) else {}
