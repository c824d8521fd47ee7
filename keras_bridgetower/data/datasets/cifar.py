"""Reader of CIFAR-10 and CIFAR-100: small pictures in Python pickles."""

import dataclasses
import functools
import io
import pickle

import numpy as np
from PIL import Image

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most

SIDE = 32
# Training pictures that form the honest validation set.
HELD_OUT = 5000
# NumPy's modules, before and after version 2, of the function that a pickled
# array names.
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
# Maximum size in bytes. The largest published file has 155 million.
LARGEST_PICKLE = 500_000_000
# Instructions that hash what a file has, or allocate what it names.
FORBIDDEN = (
    pickle.EMPTY_SET
    + pickle.ADDITEMS
    + pickle.FROZENSET
    + pickle.DICT
    + pickle.SETITEM
    + pickle.BYTEARRAY8
)


def read_pickle(path):
    """Read the dict in a pickle of texts, numbers and 8-bit arrays.

    Safe for untrusted files: no code from the file runs, and functions of this
    module replace the NumPy functions that it names.

    Args:
        path: path of the file.

    Returns:
        dict with keys of type bytes.

    Raises:
        ValueError: the file has other objects.
    """
    try:
        # Read into memory first: a damaged length cannot allocate more.
        with open_regular(path) as file:
            data = read_most(file, LARGEST_PICKLE)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return {
            key: value.pixels if isinstance(value, _Array) else value
            for key, value in content.items()
        }
    except Exception as error:  # Damaged pickles cause errors of many types.
        raise ValueError(
            f"{path} must be a pickle of a dict of texts, numbers and arrays. "
            f"Received: {type(error).__name__}: {error!s:.300}"
        ) from error


# Python's unpickler in Python, since the one in C allocates any length that a
# damaged file names.
class _Unpickler(pickle._Unpickler):
    dispatch = {
        opcode: load
        for opcode, load in pickle._Unpickler.dispatch.items()
        if opcode not in FORBIDDEN
    }

    def find_class(self, module, name):
        # Return new functions, since a pickle may set their attributes.
        if (module, name) == ("numpy", "dtype"):
            return lambda name, *options: _Bytes(name)
        if (module, name) == ("numpy", "ndarray"):
            return lambda: None
        if module in NUMPY and name == "_reconstruct":
            return lambda kind, shape, typecode: _Array()
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def load_setitems(self):
        # On the stack are keys and values in turn. Hashing a nested key may
        # take forever.
        if {*map(type, self.stack[::2])} - {bytes, str}:
            raise pickle.UnpicklingError("keys must be texts")
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems


class _Bytes:
    """Replaces NumPy's dtype of 8-bit values, and rejects others."""

    __slots__ = ()

    def __init__(self, name):
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError("another dtype is not allowed")

    def __setstate__(self, state):
        # Version and byte order, then fields, which 8-bit values lack.
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields is not allowed")


class _Array:
    """Replaces a NumPy array of 8-bit values until its state is set."""

    pixels = None

    def __setstate__(self, state):
        _, shape, dtype, by_columns, data = state
        if not isinstance(dtype, _Bytes):
            raise pickle.UnpicklingError("an array must be of 8-bit values")
        order = "F" if by_columns else "C"
        self.pixels = np.frombuffer(data, "uint8").reshape(shape, order=order)


@functools.lru_cache(maxsize=2)
def _pixels(path):
    rows = read_pickle(path)[b"data"].reshape(-1, 3, SIDE, SIDE)
    return rows.transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class PickledPicture(Picture):
    """A picture in a CIFAR file, read as a PNG file.

    Args:
        path: str, path of the pickle.
        row: int, position of the picture in it.
    """

    path: str
    row: int

    def read(self):
        file = io.BytesIO()
        Image.fromarray(_pixels(self.path)[self.row]).save(file, "PNG")
        return file.getvalue()


class Cifar(DataSet, published="cifar"):
    """Abstract: reads files of pictures, each with the number of its class.

    The official protocol chooses the best epoch on the test set. The honest
    protocol chooses it on the last 5,000 training pictures, and does not train
    on them.
    """

    task = "image_classification"
    folder = names = names_key = labels_key = None
    batches = {}

    @functools.cached_property
    def labels(self):
        path = self.path(*self._paths(self.names))
        return [name.decode() for name in read_pickle(path)[self.names_key]]

    def files(self, part):
        names = *self.batches[part.split("_")[0]], self.names
        return tuple(self._paths(name) for name in names)

    def drafts(self, part):
        file = part.split("_")[0]
        rows = []
        for name in self.batches[file]:
            path = str(self.path(*self._paths(name)))
            labels = read_pickle(path)[self.labels_key]
            pairs = zip(labels, _pixels(path), strict=True)
            rows += [
                (f"{name}-{row}", PickledPicture(path, row), label)
                for row, (label, _) in enumerate(pairs)
            ]
        cut = max(len(rows) - HELD_OUT, len(rows) // 2)
        parts = {"train_rest": rows[:cut], "train_held_out": rows[cut:]}
        for key, picture, label in parts.get(part, rows):
            yield Draft(
                key, (picture,), (Sample(key, "", (int(label),)),), file
            )

    def _paths(self, name):
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
