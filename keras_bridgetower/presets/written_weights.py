"""Prepares a weight file that was just saved: its layout, and its index."""

import json
import pathlib

import keras
import numpy as np

from keras_bridgetower.presets import hdf5
from keras_bridgetower.presets.weights_file import INDEX
from keras_bridgetower.presets.weights_file import WEIGHTS
from keras_bridgetower.presets.weights_file import by_path
from keras_bridgetower.presets.weights_file import is_int8


def make_dense(path, folder):
    """Rewrite a file of quantized weights in HDF5's denser layout.

    Otherwise the headers of scales and biases take as much room as the
    integers of a small model.

    Args:
        path: path of a weight file that was just saved, or of none.
        folder: path of the preset folder, for errors.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return
    places = hdf5.array_places(path, folder).values()
    if any(is_int8(dtype) for _, _, dtype in places):
        dense = path.with_suffix(".dense.h5")
        hdf5.rewrite(path, dense)
        dense.replace(path)


def write_index(backbone, folder):
    """Write the index of a backbone's weight file that was just saved.

    Args:
        backbone: the backbone.
        folder: path of the preset folder. Nothing is written where the
            weights are in several files or not plainly stored.
    """
    path = pathlib.Path(folder) / WEIGHTS
    if not path.is_file():
        return
    places = list(hdf5.array_places(path, folder).values())
    if None in [offset for offset, _, _ in places]:
        return
    variables = by_path(backbone.weights, backbone.image_encoder)
    numbers = _numbers_of(backbone, variables.values(), path, places)
    if len(set(numbers) - {None}) < len(variables):
        return
    index = {
        name: places[number]
        for name, number in zip(variables, numbers, strict=True)
    }
    if all(
        place[1] == list(variables[name].shape) for name, place in index.items()
    ):
        text = json.dumps(index, indent=0)
        (path.parent / INDEX).write_text(text + "\n")


def _numbers_of(backbone, variables, path, places):
    """The number of the array in a weight file that each variable loads.

    Keras alone knows its layout. It is asked to load a file in which every
    array is filled with its own number; if a type cannot hold the number,
    one file for each of its digits. Nothing is assigned in this scope.

    Args:
        backbone: the backbone that was saved in the file.
        variables: iterable of its variables.
        path: `pathlib.Path` of the file.
        places: list of the places of its arrays.

    Returns:
        list of int; None for a variable that is not loaded.
    """
    variables = list(variables)
    numbers = [0] * len(variables)
    numbered = path.with_suffix(".numbered.weights.h5")
    # Digits are below what the narrowest type of numbers tells apart.
    narrow = any(np.dtype(dtype).itemsize < 4 for _, _, dtype in places)
    base = 100 if narrow else 2**24
    unit = 1
    while unit == 1 or unit < len(places):
        digits = [k // unit % base for k in range(len(places))]
        hdf5.write_filled(path, numbered, digits)
        try:
            with _Numbers() as found:
                backbone.load_weights(str(numbered))
        finally:
            numbered.unlink()
        read = [found.first_numbers.get(id(v)) for v in variables]
        numbers = [
            None if number is None or digit is None else number + unit * digit
            for number, digit in zip(numbers, read, strict=True)
        ]
        unit *= base
    return numbers


class _Numbers(keras.StatelessScope):
    """A scope, of this thread alone, that only notes what is assigned."""

    def __init__(self):
        super().__init__()
        self.first_numbers = {}

    def add_update(self, update):
        variable, value = update
        first = np.ravel(keras.ops.convert_to_numpy(value))[:1]
        self.first_numbers[id(variable)] = int(first[0]) if first.size else None
