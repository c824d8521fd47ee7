"""Reader of CIFAR-10 and CIFAR-100: small pictures in Python pickles."""

import dataclasses
import functools
import io
import pickle
import struct

import numpy as np
from PIL import Image

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.base import Split
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most

SIDE = 32
# Training pictures that form the honest validation set.
HELD_OUT = 5000
# NumPy's modules, before and after version 2, of the functions that a pickled
# array names.
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY_5 = ("numpy.core.numeric", "numpy._core.numeric")
# Maximum size in bytes. The largest published file has 155 million.
LARGEST_PICKLE = 500_000_000
# Types of keys that are fast to hash and compare.
KEYS = (bytes, str, int, float, bool, type(None))


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
    file = open_regular(path)
    try:
        # Read into memory first: a damaged length cannot allocate more.
        with file:
            data = read_most(file, LARGEST_PICKLE)
        content = _Unpickler(data).load()
    except Exception as error:  # Damaged pickles cause errors of many types.
        raise ValueError(
            f"{path} must be a pickle of texts, numbers and arrays. "
            f"Received: {type(error).__name__}: {error!s:.300}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a dict. Received: {type(content).__name__}"
        )
    return {
        key: value.pixels if isinstance(value, _Array) else value
        for key, value in content.items()
    }


def _checked(opcode, keys):
    """Return a loader of dict items that rejects keys that are slow to hash."""

    def load(unpickler):
        if not all(type(key) in KEYS for key in unpickler.stack[keys]):
            raise pickle.UnpicklingError("keys must be texts or numbers")
        pickle._Unpickler.dispatch[opcode[0]](unpickler)

    return load


# Python's unpickler in Python, since the one in C allocates any length that a
# damaged file names.
class _Unpickler(pickle._Unpickler):
    def __init__(self, data):
        super().__init__(io.BytesIO(data), encoding="bytes")
        # Remaining bytes to decode, since each text may be decoded only once.
        self._left = len(data)

    def find_class(self, module, name):
        # Return new functions, since a pickle may set their attributes.
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: self._encode(text)
        if (module, name) == ("numpy", "dtype"):
            return lambda name, *options: _Bytes(name)
        if (module, name) == ("numpy", "ndarray"):
            return lambda: None
        if module in NUMPY and name == "_reconstruct":
            return lambda kind, shape, typecode: _Array()
        if module in NUMPY_5 and name == "_frombuffer":
            return lambda data, dtype, shape, order: _Array().__setstate__(
                (1, shape, dtype, order == "F", data)
            )
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def _encode(self, text):
        """Return the bytes that Python 3 pickled as text for Python 2."""
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it has more bytes than the file")
        return text.encode("latin1")

    def _bytearray(self):
        # Python's own allocates the length that the file names.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    # Without sets, which hash their items.
    dispatch = {
        opcode: load
        for opcode, load in pickle._Unpickler.dispatch.items()
        if opcode not in pickle.EMPTY_SET + pickle.ADDITEMS + pickle.FROZENSET
    } | {
        # On the stack are keys and values in turn.
        pickle.SETITEMS[0]: _checked(pickle.SETITEMS, slice(None, None, 2)),
        pickle.SETITEM[0]: _checked(pickle.SETITEM, slice(-2, -1)),
        pickle.DICT[0]: _checked(pickle.DICT, slice(None, None, 2)),
        pickle.BYTEARRAY8[0]: _bytearray,
    }


class _Bytes:
    """Replaces NumPy's dtype of 8-bit values, and rejects others."""

    __slots__ = ()

    def __init__(self, name):
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"dtype {_shown(name)} is not allowed")

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
        return self


@functools.lru_cache(maxsize=2)
def _pixels(path):
    rows = read_pickle(path).get(b"data")
    rows = rows if isinstance(rows, np.ndarray) else np.empty(0)
    if rows.shape[1:] != (3 * SIDE * SIDE,):
        raise ValueError(
            f"{path} must hold b'data' of shape (pictures, {3 * SIDE**2}). "
            f"Received: {rows.shape}"
        )
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class PickledPicture(Picture):
    """A picture in a CIFAR file, read as a PNG file.

    Args:
        path: str, path of the pickle.
        row: int, position of the picture in it.
    """

    WRITTEN_AS = "PickledPicture(path={path}, row={row})"

    path: str
    row: int

    def read(self):
        file = io.BytesIO()
        Image.fromarray(_pixels(self.path)[self.row]).save(file, "PNG")
        return file.getvalue()


class Cifar(DataSet):
    """Abstract: reads files of pictures, each with the number of its class.

    The official protocol chooses the best epoch on the test set. The honest
    protocol chooses it on the last 5,000 training pictures, and does not train
    on them.
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
    # The usual numbers, not counted on the files.
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
        if not _is_list_of_type(bytes, names):
            raise ValueError(
                f"{path} must hold {self.names_key}, a list of names. "
                f"Received: {_shown(names)}"
            )
        return [name.decode("utf-8", "replace") for name in names]

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
            sample = Sample(key, "", (label,))
            yield Draft(key, (PickledPicture(path, row),), (sample,), file)

    def _numbers(self, name):
        path = self.path(*self._places(name))
        labels = read_pickle(path).get(self.labels_key)
        if not _is_list_of_type(int, labels) or len(labels) != len(
            _pixels(str(path))
        ):
            raise ValueError(
                f"{path} must hold {self.labels_key}, one for each picture. "
                f"Received: {_shown(labels)}"
            )
        return labels

    def _places(self, name):
        return f"{self.folder}/{name}", name


def _shown(value):
    """Describe a value of a pickle briefly; its `repr` could be endless."""
    if isinstance(value, (str, bytes)):
        return f"{value[:50]!r}"
    size = f" of {len(value)}" if isinstance(value, (list, dict, tuple)) else ""
    return f"{type(value).__name__}{size}"


def _is_list_of_type(kind, values):
    return isinstance(values, list) and {*map(type, values)} == {kind}


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
