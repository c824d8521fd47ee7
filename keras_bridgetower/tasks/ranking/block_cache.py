"""Saves finished blocks of a ranking in a folder, to continue from there."""

import hashlib
import json
import pathlib

import keras
import numpy as np

from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically

_KEY = "ranking.json"


class NoCache:
    """Keeps nothing."""

    def load(self, block):
        return None

    def save(self, block, scores):
        pass


class BlockCache:
    """Keeps each block's scores in a file, for one model and one pool.

    Args:
        folder: path; made if it is not there.
        key: dict of plain values that tells this ranking from any other.

    Raises:
        ValueError: the folder holds another ranking.
    """

    def __init__(self, folder, key):
        self._folder = pathlib.Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(
                "`cache_dir` must be a folder, or the path of a new one. "
                f"Received: cache_dir={str(folder)!r}"
            )
        check_no_link(self._folder, "`cache_dir`")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _KEY
        if not path.exists():
            text = json.dumps(key, indent=2) + "\n"
            write_atomically(path, lambda file: file.write(text.encode()))
        saved = _read(path)
        other = sorted(k for k in key if saved.get(k) != key[k])
        if other:
            shown = {k: (saved.get(k), key[k]) for k in other}
            raise ValueError(
                "`cache_dir` must be empty or hold the blocks of this very "
                f"ranking; it holds one that differs in {', '.join(other)}. "
                "Pass the same model, pictures, texts and settings as then, "
                "or another folder. Received: "
                f"cache_dir={str(folder)!r} with (saved, now): {shown}"
            )

    def load(self, block):
        """Scores of a block, or None where it is not finished."""
        path = self._path(block)
        if not path.exists():
            return None
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                "`cache_dir` holds a damaged file. Remove it, and its block "
                f"is ranked anew. Received: {str(path)!r}"
            ) from error

    def save(self, block, scores):
        """Keep the scores of a finished block, whole or not at all."""
        write_atomically(self._path(block), lambda file: np.save(file, scores))

    def _path(self, block):
        return self._folder / f"block_{block:06}.npy"


def key_of(task, pictures, texts, **settings):
    """What tells a ranking from any other.

    Args:
        task: a `BridgeTowerRetrieval`.
        pictures, texts: iterables of dicts of arrays, the features.
        **settings: plain values.

    Returns:
        dict of plain values.
    """
    weights = [*task.backbone.weights, *task.heads.weights]
    return {
        "weights": _digest({"": w} for w in weights),
        "pictures": _digest(pictures),
        "texts": _digest(texts),
        "objective": task.objective,
        # Bits differ by backend and precision.
        "backend": keras.config.backend(),
        "dtype": task.backbone.fusion.dtype_policy.name,
        **settings,
    }


def _digest(rows):
    digest = hashlib.sha256()
    for row in rows:
        for name, x in row.items():
            x = np.ascontiguousarray(keras.ops.convert_to_numpy(x))
            digest.update(f"{name} {x.dtype} {x.shape}".encode())
            digest.update(x.view("uint8") if x.ndim else x.tobytes())
    return digest.hexdigest()


def _read(path):
    try:
        return dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`cache_dir` must hold the blocks of a ranking. Use another "
            f"folder. Received: an unreadable {str(path)!r}"
        ) from error
