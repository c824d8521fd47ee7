"""Plans a ranking's memory, and stores states and finished blocks."""

import dataclasses
import hashlib
import json
import pathlib
import tempfile

import keras
import numpy as np

from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically

# Pictures that are scored, and written, together if memory allows.
_PICTURES = 32


class InMemory:
    """Rows of states in an array.

    Args:
        rows: int, number of rows.
        shape: tuple, shape of a row, float32.
    """

    def __init__(self, rows, shape):
        self._rows = np.empty((rows, *shape), "float32")

    def write(self, first, rows):
        """Write rows from number `first` on."""
        self._rows[first : first + len(rows)] = rows

    def read(self, rows):
        """Return rows by a slice."""
        return self._rows[rows]

    def close(self):
        """Release all rows."""


class InFile:
    """Rows of states in a file without a name, as `InMemory`.

    It is mapped into memory only while it is read or written, so that no page
    of it counts for longer; it is gone when the process ends in any way.
    """

    def __init__(self, rows, shape):
        self._file = tempfile.TemporaryFile(buffering=0)
        self._shape = (rows, *shape)

    def write(self, first, rows):
        self._mapped("r+" if first else "w+")[first : first + len(rows)] = rows

    def read(self, rows):
        return np.array(self._mapped("r")[rows])

    def close(self):
        self._file.close()

    def _mapped(self, mode):
        return np.memmap(self._file, "float32", mode, shape=self._shape)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of the blocks of states that are kept at a time.

    Args:
        pictures, texts: int, of a block. There may be fewer of them.
        texts_in, pictures_in: class that holds the states of all of them.
    """

    pictures: int
    texts: int
    texts_in: type
    pictures_in: type


class Sizes:
    """Bytes that a task needs for a row of its work.

    Args:
        task: a `BridgeTowerRetrieval`.
        batch_size: int, rows per forward pass.
        max_memory: int, bytes.
    """

    def __init__(self, task, batch_size, max_memory):
        fusion, tower = task.backbone.fusion, task.backbone.image_tower
        self.batch_size, self.max_memory = batch_size, max_memory
        taps = sum(tap is not None for tap in fusion.taps)
        tokens = task.needed_preprocessor().tokenizer.sequence_length
        patches, width = tower.outputs[-1].shape[1:]
        self.text_shape = (taps, tokens, fusion.hidden_dim)
        self.image_shape = (taps, patches, fusion.hidden_dim)
        self.text = 4 * int(np.prod(self.text_shape))
        self.image = 4 * int(np.prod(self.image_shape))
        pair = _work(patches + tokens, fusion.hidden_dim, fusion.num_heads)
        pixels = 8 * int(np.prod(tower.inputs[0].shape[1:]))
        self.work = batch_size * (
            # Gathered, or just made.
            self.text
            + self.image
            + max(pair, pixels + _work(patches, width, fusion.num_heads))
        )

    def plan(self, pictures, texts, again):
        """Divide the memory.

        Args:
            pictures, texts: int, how many there are.
            again: bool, whether pictures are encoded before all are scored.

        Returns:
            `Plan`.

        Raises:
            ValueError: not even one picture and text fit.
        """
        # Rows kept here are copied to the device too.
        text, image = 2 * self.text, 2 * self.image
        free = self.max_memory - self.work
        if free < text + image:
            raise ValueError(
                f"`max_memory` must be at least {self.work + text + image} "
                f"bytes, or `batch_size` lower than {self.batch_size}. "
                f"Received: max_memory={self.max_memory}"
            )
        share = min(free // 2, free - image)
        text_block = _few_sizes(texts, max(1, share // text))
        room = free - text_block * text
        all_texts = text_block >= texts
        # Texts that wait in a file are read once for each block of pictures.
        block = min(pictures, _PICTURES if all_texts or again else pictures)
        block = _few_sizes(block, room // image)
        all_pictures = pictures * self.image + block * image <= room
        return Plan(
            block,
            text_block,
            InMemory if all_texts else InFile,
            InMemory if all_pictures else InFile,
        )


def _few_sizes(count, most):
    """Return the size of a block: a power of two, unless that hardly fits.

    A function is compiled for each size of its blocks. Each number of texts
    would be one, and each is filled up in a copy.
    """
    size = 1 << (count - 1).bit_length()
    return size if 2 * size <= most else min(count, most)


def _work(tokens, width, heads):
    """Estimate of what one row of a forward pass takes at its widest."""
    # Queries, keys, values, the hidden layer four times as wide, residuals,
    # of both modalities; and attention weights where nothing fuses them.
    return 4 * (20 * tokens * width + 2 * heads * tokens**2)


_KEY = "ranking.json"


class BlockCache:
    """Stores each block's scores in a file, for one model and one pool.

    Args:
        folder: path; made if it is not there.
        key: dict of plain values that tells this ranking from any other.

    Raises:
        ValueError: the folder holds another ranking.
    """

    def __init__(self, folder, key):
        self._folder = pathlib.Path(folder)
        check_no_link(self._folder, "`cache_dir`")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _KEY
        if not path.exists():
            text = json.dumps(key, indent=2) + "\n"
            write_atomically(path, lambda file: file.write(text.encode()))
        saved = _read(path)
        other = sorted(k for k in key if saved.get(k) != key[k])
        if other:
            raise ValueError(
                "`cache_dir` must be empty or hold blocks of the same model, "
                f"pictures, texts and settings. Received: {str(folder)!r}, "
                f"which differs in {', '.join(other)}"
            )

    def load(self, block):
        """Return the scores of a block, or None if it is not finished."""
        path = self._path(block)
        if not path.exists():
            return None
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                "`cache_dir` must have no damaged file. Remove it. Received: "
                f"{str(path)!r}"
            ) from error

    def save(self, block, scores):
        """Store the scores of a finished block, completely or not at all."""
        write_atomically(self._path(block), lambda file: np.save(file, scores))

    def _path(self, block):
        return self._folder / f"block_{block:06}.npy"


def storage_key(task, pictures, texts, **settings):
    """Return values that identify a ranking.

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
            "`cache_dir` must hold the blocks of a ranking. Received: an "
            f"unreadable {str(path)!r}"
        ) from error
