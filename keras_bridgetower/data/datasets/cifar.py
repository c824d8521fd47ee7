"""Reader of the binary version of CIFAR-10 and CIFAR-100: small pictures."""

import dataclasses
import functools
import io

import numpy as np
from PIL import Image

from keras_bridgetower.data.datasets.base import DataSet
from keras_bridgetower.data.datasets.tables import Picture
from keras_bridgetower.data.datasets.tables import text_lines
from keras_bridgetower.data.records.format import Draft
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_most

SIDE = 32
# Training pictures that form the honest validation set.
HELD_OUT = 5000
# Maximum size in bytes. The largest published file has 154 million.
LARGEST = 500_000_000


@functools.lru_cache(maxsize=2)
def _rows(path, labels):
    """Read the rows of a file, each of labels and then pixels.

    Args:
        path: str.
        labels: int, bytes of the labels of a row.

    Returns:
        uint8 array `(rows, labels + 3072)`.
    """
    with open_regular(path) as file:
        data = read_most(file, LARGEST)
    size = labels + 3 * SIDE * SIDE
    if len(data) % size:
        raise ValueError(
            f"{path} must be of the binary version, with rows of {size} bytes. "
            f"Received: {len(data)} bytes"
        )
    return np.frombuffer(data, "uint8").reshape(-1, size)


@dataclasses.dataclass(frozen=True, slots=True)
class CifarPicture(Picture):
    """A picture in a CIFAR file, read as a PNG file.

    Args:
        path: str, path of the file.
        labels: int, bytes of the labels before it.
        row: int, position of the picture in the file.
    """

    path: str
    labels: int
    row: int

    def read(self):
        pixels = _rows(self.path, self.labels)[self.row, self.labels :]
        pixels = pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        return file.getvalue()


class Cifar(DataSet, published="cifar"):
    """Abstract: reads files of pictures, each with the number of its class.

    The official protocol chooses the best epoch on the test set. The honest
    protocol chooses it on the last 5,000 training pictures, and does not train
    on them.

    Attributes:
        folder: str.
        names: str, the file with the names of the classes.
        row_labels: int, labels of a picture, of which the last one is read.
        batches: dict from `"train"` and `"test"` to names of files.
    """

    task = "image_classification"
    folder = names = row_labels = None
    batches = {}

    @functools.cached_property
    def labels(self):
        lines = text_lines(self.path(*self._paths(self.names)))
        return [line.strip() for line in lines if line.strip()]

    def files(self, part):
        batches = self.batches[part.split("_")[0]]
        names = *(f"{name}.bin" for name in batches), self.names
        return tuple(self._paths(name) for name in names)

    def drafts(self, part):
        file, count = part.split("_")[0], self.row_labels
        rows = []
        for name in self.batches[file]:
            path = str(self.path(*self._paths(f"{name}.bin")))
            labels = _rows(path, count)[:, count - 1].tolist()
            rows += [
                (f"{name}-{row}", CifarPicture(path, count, row), label)
                for row, label in enumerate(labels)
            ]
        cut = max(len(rows) - HELD_OUT, len(rows) // 2)
        parts = {"train_rest": rows[:cut], "train_held_out": rows[cut:]}
        for key, picture, label in parts.get(part, rows):
            yield Draft(key, (picture,), (Sample(key, "", (label,)),), file)

    def _paths(self, name):
        return f"{self.folder}/{name}", name


class Cifar10(Cifar):
    """CIFAR-10: `cifar-10-batches-bin/`."""

    folder, names, row_labels = "cifar-10-batches-bin", "batches.meta.txt", 1
    batches = {
        "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test": ("test_batch",),
    }


class Cifar100(Cifar):
    """CIFAR-100 with its fine classes: `cifar-100-binary/`."""

    folder, names, row_labels = "cifar-100-binary", "fine_label_names.txt", 2
    batches = {"train": ("train",), "test": ("test",)}
