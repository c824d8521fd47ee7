"""CIFAR-10 and CIFAR-100: pictures of 32 x 32 pixels in Python pickles."""

import dataclasses
import functools
import io
import pickle

import numpy as np
from PIL import Image

from keras_bridgetower.data.readers.base import DataSet
from keras_bridgetower.data.readers.base import Split
from keras_bridgetower.data.readers.files import Picture
from keras_bridgetower.data.record_format import Draft
from keras_bridgetower.data.record_format import Sample

SIDE = 32
HELD_OUT = 5000  # training pictures that honest validation takes
# All that a pickled array needs; anything else could run code.
ALLOWED = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


def read_pickle(path):
    """The dict in a pickle of texts, numbers and arrays; no code runs.

    Args:
        path: path of the file.

    Returns:
        dict, its keys bytes.

    Raises:
        ValueError: anything else is in the file.
    """
    try:
        with open(path, "rb") as file:
            held = _Unpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"{path} must be a pickle of texts, numbers and arrays. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(held, dict):
        raise ValueError(
            f"{path} must hold a dict. Received: {type(held).__name__}"
        )
    return held


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            # How Python 3 writes bytes for Python 2.
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


@functools.lru_cache(maxsize=2)
def _pixels(path):
    rows = read_pickle(path).get(b"data")
    rows = np.asarray(() if rows is None else rows)
    if rows.ndim != 2 or rows.shape[1:] != (3 * SIDE * SIDE,):
        raise ValueError(
            f"{path} must hold b'data' of shape (pictures, {3 * SIDE**2}). "
            f"Received: {rows.shape}"
        )
    planes = rows.astype("uint8", casting="safe").reshape(-1, 3, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class PickledPicture(Picture):
    """A picture of a CIFAR file, as PNG.

    Args:
        path: str, the pickle.
        row: int.
    """

    path: str
    row: int

    def read(self):
        file = io.BytesIO()
        Image.fromarray(_pixels(self.path)[self.row]).save(file, "PNG")
        return file.getvalue()


class Cifar(DataSet):
    """Abstract: batches of pictures with a number each.

    Official: epochs are chosen on test. Honest: on the last 5,000 training
    pictures, which are then not trained on.
    """

    task = "image_classification"
    folder = names = names_key = labels_key = None
    batches = {}
    protocols = {
        "honest": {
            "train": Split(
                ("train_rest",), f"All but the last {HELD_OUT:,} of training."
            ),
            "validation": Split(
                ("train_held_out",), f"The last {HELD_OUT:,} of training."
            ),
            "test": Split(("test",), "The test pictures."),
        },
        "official": {
            "train": Split(("train",), "The training pictures."),
            "validation": Split(
                ("test",),
                "The test pictures.",
                "they are the official test too, so epochs are chosen on it.",
            ),
            "test": Split(
                ("test",),
                "The test pictures.",
                "they are the official validation too.",
            ),
        },
    }
    # As commonly told; not counted on the files.
    sizes = {
        "train": (50_000, 50_000),
        "train_rest": (45_000, 45_000),
        "train_held_out": (5_000, 5_000),
        "test": (10_000, 10_000),
    }

    @functools.cached_property
    def labels(self):
        path = self.path(*self._places(self.names))
        names = read_pickle(path).get(self.names_key)
        if not names:
            raise ValueError(
                f"{path} must hold {self.names_key}. Received: no such key"
            )
        return [name.decode() for name in names]

    def files(self, part):
        names = *self.batches[part.split("_")[0]], self.names
        return tuple(self._places(name) for name in names)

    def drafts(self, part):
        file = part.split("_")[0]
        rows = [
            (name, row, label)
            for name in self.batches[file]
            for row, label in enumerate(self._numbers(name))
        ]
        cut = max(len(rows) - HELD_OUT, len(rows) // 2)
        parts = {"train_rest": rows[:cut], "train_held_out": rows[cut:]}
        for name, row, label in parts.get(part, rows):
            key = f"{name}-{row}"
            path = str(self.path(*self._places(name)))
            sample = Sample(key, "", (int(label),))
            yield Draft(key, (PickledPicture(path, row),), (sample,), file)

    def _numbers(self, name):
        path = self.path(*self._places(name))
        labels = read_pickle(path).get(self.labels_key)
        if labels is None or len(labels) != len(_pixels(str(path))):
            raise ValueError(
                f"{path} must hold {self.labels_key}, one for each picture. "
                f"Received: {labels!r:.100}"
            )
        return labels

    def _places(self, name):
        return f"{self.folder}/{name}", name


class Cifar10(Cifar):
    """CIFAR-10: `cifar-10-batches-py/`."""

    folder, names = "cifar-10-batches-py", "batches.meta"
    names_key, labels_key = b"label_names", b"labels"
    batches = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }


class Cifar100(Cifar):
    """CIFAR-100 with its fine classes: `cifar-100-python/`."""

    folder, names = "cifar-100-python", "meta"
    names_key, labels_key = b"fine_label_names", b"fine_labels"
    batches = {"train": ("train",), "test": ("test",)}
