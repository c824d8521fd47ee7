"""Weight files of presets: read in one pass, straight into the variables.

Keras finds its way through a weight file group by group, and copies what it
reads; for a large model that takes longer than the reading. An index beside
the file says where each variable lies.
"""

import json
import pathlib

import h5py
import keras
import numpy as np

from keras_bridgetower import memory

WEIGHTS = "model.weights.h5"
INDEX = "weights_index.json"


def by_path(weights, image_encoder):
    """Variables by path, without the name that a saved CLIP puts first."""
    prefix = f"{image_encoder.name}_"
    return {v.path.removeprefix(prefix): v for v in weights}


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
    numbered = path.with_suffix(".numbered.weights.h5")
    places = _number(path, numbered)
    variables = by_path(backbone.weights, backbone.image_encoder)
    found = {}

    def note(variable, value):
        found[id(variable)] = places[int(np.ravel(value)[0])]

    # Keras alone knows its layout: it is asked to load a file in which every
    # entry is filled with its own number.
    assign = keras.Variable.assign
    keras.Variable.assign = note
    try:
        backbone.load_weights(str(numbered))
    finally:
        keras.Variable.assign = assign
        numbered.unlink()
    index = {name: found.get(id(v)) for name, v in variables.items()}
    shapes = {name: list(v.shape) for name, v in variables.items()}
    if all(place and place[1] == shapes[n] for n, place in index.items()):
        text = json.dumps(index, indent=0)
        (path.parent / INDEX).write_text(text + "\n")


def _number(path, numbered):
    """Write a file of the same layout, entry k full of k; the places."""
    places = []

    def copy(name, item):
        if isinstance(item, h5py.Dataset):
            # Never written, so it takes no room.
            made = file.create_dataset(
                name, item.shape, item.dtype, fillvalue=len(places)
            )
            places.append(_place(item))
        else:
            made = file.require_group(name)
        made.attrs.update(item.attrs)

    with h5py.File(path) as source, h5py.File(numbered, "w") as file:
        file.attrs.update(source.attrs)
        source.visititems(copy)
    return places


def _place(dataset):
    """Offset, shape and type of a plainly stored dataset, else None."""
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None or dataset.attrs:
        return None
    return [offset, list(dataset.shape), dataset.dtype.str]


def load(backbone, folder):
    """Load a backbone's weights from a preset folder.

    Args:
        backbone: a backbone of the preset's architecture.
        folder: path of the preset folder.

    Raises:
        ValueError: the index is of another architecture.
    """
    folder = pathlib.Path(folder)
    path = folder / INDEX
    if not path.is_file():
        single = folder / WEIGHTS
        sharded = folder / "model.weights.json"
        backbone.load_weights(str(single if single.is_file() else sharded))
        return
    index = json.loads(path.read_text())
    variables = by_path(backbone.weights, backbone.image_encoder)
    if set(index) != set(variables):
        odd = sorted(set(index) ^ set(variables))
        raise ValueError(
            "The preset's weights must be those of its config.json. Received: "
            f"preset={str(folder)!r} with {len(odd)} other names: {odd[:20]}"
        )
    blocks = memory.Blocks()
    with open(folder / WEIGHTS, "rb") as file:
        for name, (offset, shape, dtype) in index.items():
            value = blocks.empty(shape, dtype)
            file.seek(offset)
            file.readinto(value)
            memory.give(variables[name], value)
