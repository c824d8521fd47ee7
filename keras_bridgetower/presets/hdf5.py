"""HDF5 weight files: finds arrays, refuses unusual files, writes dense ones."""

import math

import h5py
import numpy as np

from keras_bridgetower.presets.errors import PresetError


def rewrite(path, new, change=lambda name, values: values):
    """Copy a weight file in HDF5's newer, denser layout.

    In the older one the headers of many small arrays take a sixth of a file.

    Args:
        path: path of the file.
        new: path of the copy.
        change: callable from the name of an array and its values to the
            values to be stored.
    """
    with (
        h5py.File(path) as source,
        h5py.File(new, "w", libver="latest") as target,
    ):
        target.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                values = change(name, item[()])
                made = target.create_dataset(name, data=values)
            else:
                made = target.require_group(name)
            made.attrs.update(item.attrs)

        source.visititems(copy)


def array_places(path, folder):
    """The place of each array in a weight file.

    Args:
        path: `pathlib.Path` of the file.
        folder: path of the preset folder, for errors.

    Returns:
        dict from the name of each array to `[offset, shape, dtype]`. The
        offset is in bytes, or None if only Keras can read the array.

    Raises:
        PresetError: the file is truncated or damaged, or contains links or
            arrays that are compressed or stored elsewhere.
    """
    found, names = {}, []

    def note(name, info):
        if info.type == h5py.h5o.TYPE_DATASET:
            names.append(name)

    try:
        size = path.stat().st_size
        with h5py.File(path) as file:
            file.id.links.visit(_check_link, info=True)
            # Twice as fast as `visititems`, which makes an object for each
            # group.
            h5py.h5o.visit(file.id, note, info=True)
            for name in names:
                dataset = h5py.h5o.open(file.id, name)
                found[name.decode()] = _array_place(name, dataset)
        for name, (offset, shape, dtype) in found.items():
            if offset and offset + _bytes(shape, dtype) > size:
                raise ValueError(f"{name} ends beyond the file")
    # h5py raises KeyError, OSError, RuntimeError and others.
    except Exception as error:
        raise PresetError(
            f"{path.name} is no whole HDF5 file of plainly stored weights. "
            "Fetch the preset again, or save the model anew with "
            "`save_to_preset`.",
            folder,
            [f"{type(error).__name__}: {error!s:.200}"],
        ) from error
    return found


def _check_link(name, info):
    # Soft and external links lead to other groups and files.
    if info.type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name!r} is a link")


def _array_place(name, dataset):
    """Offset, shape and dtype of a dataset, which must be stored plainly."""
    shape, dtype = list(dataset.shape), dataset.dtype
    properties = dataset.get_create_plist()
    # Chunks may be compressed, and then a small file can fill the memory.
    # Arrays of other layouts, and unwritten ones, are not in this file.
    plain = properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if (
        not plain
        or properties.get_external_count()
        or dtype.kind not in "fiubV"
        or dataset.get_storage_size() != _bytes(shape, dtype)
    ):
        raise ValueError(f"{name!r} is not stored plainly")
    # Keras stores types that NumPy lacks with an attribute.
    marked = h5py.h5a.get_num_attrs(dataset)
    return [None if marked else dataset.get_offset(), shape, dtype.str]


def _bytes(shape, dtype):
    return math.prod(shape) * np.dtype(dtype).itemsize


def write_filled(path, filled, numbers):
    """Write a file of the same layout, each array full of one number.

    Args:
        path: path of a weight file, as `array_places` accepts it.
        filled: path of the new file. Its arrays take no room.
        numbers: iterable of int, one for each array, in order.
    """
    numbers = iter(numbers)

    def copy(name, item):
        if isinstance(item, h5py.Dataset):
            made = file.create_dataset(
                name, item.shape, item.dtype, fillvalue=next(numbers)
            )
        else:
            made = file.require_group(name)
        made.attrs.update(item.attrs)

    with h5py.File(path) as source, h5py.File(filled, "w") as file:
        file.attrs.update(source.attrs)
        source.visititems(copy)
