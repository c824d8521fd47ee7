"""Prepares a weight file that was just saved: its layout, and its index."""

import json
import pathlib

import h5py
import keras
import numpy as np

from keras_bridgetower.presets import weights_file


def make_dense(path, folder):
    """Rewrite a file of quantized weights in HDF5's denser layout.

    Otherwise the headers of scales and biases take as much room as the
    integers of a small model.

    Args:
        path: path of a weight file that was just saved. It may be missing.
        folder: path of the preset folder, for errors.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return
    places = weights_file.array_places(path, folder).values()
    if any(weights_file.is_int8(dtype) for _, _, dtype in places):
        dense = path.with_suffix(".dense.h5")
        rewrite(path, dense)
        dense.replace(path)


def rewrite(path, new, change=lambda name, values: values):
    """Copy a weight file in HDF5's newer, denser layout.

    In the older one the headers of many small arrays take a sixth of a file.

    Args:
        path: path of the file.
        new: path of the copy.
        change: callable from the name of an array and its values to the
            values to be stored.
    """

    def create(target, name, dataset):
        values = change(name, dataset[()])
        return target.create_dataset(name, data=values)

    _copy(path, new, create, libver="latest")


def _copy(path, new, create, **kwargs):
    """Copy groups and attributes; `create` makes the arrays."""
    with h5py.File(path) as source, h5py.File(new, "w", **kwargs) as target:
        target.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                copied = create(target, name, item)
            else:
                copied = target.require_group(name)
            copied.attrs.update(item.attrs)

        source.visititems(copy)


def write_index(backbone, folder):
    """Write the index of a backbone's weight file that was just saved.

    Args:
        backbone: the backbone.
        folder: path of the preset folder. Nothing is written if the weights
            are in several files or not plainly stored.
    """
    path = pathlib.Path(folder) / weights_file.WEIGHTS
    if not path.is_file():
        return
    places = list(weights_file.array_places(path, folder).values())
    if None in [offset for offset, _, _ in places]:
        return
    variables = weights_file.by_path(backbone.weights, backbone.image_encoder)
    numbers = _array_numbers(backbone, variables.values(), path, places)
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
        (path.parent / weights_file.INDEX).write_text(text + "\n")


def _array_numbers(backbone, variables, path, places):
    """Find the number of the array in a weight file that each variable loads.

    Only Keras knows its layout. So it loads a file in which every array is
    filled with its own number; if a type cannot hold the number, one file for
    each of its digits. Nothing is assigned.

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
    # The narrowest types hold integers up to 127.
    narrow = any(np.dtype(dtype).itemsize < 4 for _, _, dtype in places)
    base = 100 if narrow else 2**24
    unit = 1
    while unit == 1 or unit < len(places):
        _write_numbered(
            path, numbered, [k // unit % base for k in range(len(places))]
        )
        try:
            with weights_file.Received(_first_number) as received:
                backbone.load_weights(str(numbered))
        finally:
            numbered.unlink()
        digits = {id(variable): digit for variable, digit in received.updates}
        numbers = [
            None if None in (number, digit) else number + unit * digit
            for number, digit in zip(
                numbers, [digits.get(id(v)) for v in variables], strict=True
            )
        ]
        unit *= base
    return numbers


def _write_numbered(path, new, numbers):
    """Copy a file with each array full of one number, which takes no room."""
    numbers = iter(numbers)

    def create(target, name, dataset):
        return target.create_dataset(
            name, dataset.shape, dataset.dtype, fillvalue=next(numbers)
        )

    _copy(path, new, create)


def _first_number(value):
    first = np.ravel(keras.ops.convert_to_numpy(value))[:1]
    return int(first[0]) if first.size else None
