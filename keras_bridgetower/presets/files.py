"""Which files of a model are read, and which of them a folder lacks."""

import json
import pathlib

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
# Each is a whole tokenizer.
TOKENIZERS = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"vocab.txt"})
TOKENIZER = "a tokenizer"
# A repository with one of these is a preset of Keras.
KERAS_WEIGHTS = ("model.weights.h5", "model.weights.json")


def beside_weights(names):
    """The files to be read before the weights.

    Args:
        names: set of str, all files of a repository.

    Returns:
        list of str.
    """
    if not names.isdisjoint(KERAS_WEIGHTS):
        return sorted(n for n in names if n.endswith((".json", ".txt")))
    indices = {n for n in _foreign_weights(names) if n.endswith(".json")}
    return sorted(names.intersection(SIDE_FILES) | indices)


def weights(folder, names):
    """The files of weights, and what else only lists of files tell.

    Args:
        folder: `pathlib.Path`, where the files beside the weights lie.
        names: set of str, all files that there are.

    Returns:
        list of str, the largest last; indices may name what is not there.
    """
    if names.isdisjoint(KERAS_WEIGHTS):
        found = _foreign_weights(names)
        for index in [name for name in found if name.endswith(".json")]:
            found += _entries(folder / index, "weight_map").values()
        return list(dict.fromkeys(found))
    found = {name for name in names if name.endswith((".h5", ".safetensors"))}
    # A manifest may also list files that are only checked.
    found.update(_entries(folder / "manifest.json", "sha256"))
    found.update(_entries(folder / KERAS_WEIGHTS[1], "weight_map").values())
    return sorted(found, key=lambda n: (n.startswith("model.weights"), n))


def lacking(folder):
    """What a folder lacks of a whole model.

    Args:
        folder: `pathlib.Path`.

    Returns:
        list of str: names of files, or words where several would do.
    """
    names = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }
    found = weights(folder, names)
    lacks = sorted(set(found) - names) if found else ["weights"]
    if names.isdisjoint(KERAS_WEIGHTS) and not any(
        tokenizer <= names for tokenizer in TOKENIZERS
    ):
        lacks.append(TOKENIZER)
    return lacks


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
        folder, found = source, weights(source, names)
    plain = [n for n in found if pathlib.PurePath(n).name == n]
    paths = [folder / n for n in dict.fromkeys([*plain, *SIDE_FILES])]
    return [path for path in paths if path.is_file()]


def _foreign_weights(names):
    """The file of weights, or the index of several, that is preferred."""
    from keras_bridgetower.convert.tensors import WEIGHT_FILES

    return [name for name in WEIGHT_FILES if name in names][:1]


def _entries(path, key):
    """An object of strings in a JSON file; empty where it is no such."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))[key]
        names = {k: v for k, v in entries.items() if isinstance(v, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # Whoever reads the file says what is wrong with it.
    except RecursionError:
        return {}
    return names
