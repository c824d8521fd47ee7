"""Forms in which `fit`, `evaluate` and `predict` are given the same samples."""

import collections.abc

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import torch
from every_task import BATCH
from every_task import rows

ROWS, EPOCHS = 4, 2
STEPS = ROWS // BATCH


class Batches(keras.utils.PyDataset):
    """Batches as a user's own `PyDataset` gives them."""

    def __init__(self, x, y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.ended = x, y, 0

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        places = (index * BATCH, (index + 1) * BATCH)
        made = [rows(values, *places) for values in (self.x, self.y)]
        return keras.utils.pack_x_y_sample_weight(*made)

    def on_epoch_end(self):
        self.ended += 1


class Samples(torch.utils.data.Dataset):
    """Samples that a torch `DataLoader` makes batches of."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        x = {name: values[index] for name, values in self.x.items()}
        # Of lists it would make lists of batches.
        x = {k: np.stack(v) if isinstance(v, list) else v for k, v in x.items()}
        return x if self.y is None else (x, self.y[index])


def generator(x, y):
    batches = Batches(x, y)
    for _ in range(EPOCHS):
        yield from (batches[i] for i in range(STEPS))


def loader(x, y, kind=lambda samples: samples):
    return torch.utils.data.DataLoader(kind(Samples(x, y)), BATCH)


def arrays(x, y):
    return {"x": x, "batch_size": BATCH} | ({} if y is None else {"y": y})


def with_pictures(function):
    def source(x, y):
        nested = keras.tree.map_structure(function, x["images"])
        return arrays({**x, "images": nested}, y)

    return source


class Column(collections.abc.Sequence):
    """A column as `datasets` has it, whose rows are read when asked for."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, place):
        return self.values[place]

    def __len__(self):
        return len(self.values)


def objects(values):
    made = np.empty(len(values), object)
    made[:] = values
    return made


def columns(function):
    """A source that makes a column of each list."""

    def source(x, y):
        made = {name: function(list(rows)) for name, rows in x.items()}
        return arrays(made, y if y is None else function(list(y)))

    return source


def table(x, y):
    pandas = pytest.importorskip("pandas")
    return columns(pandas.Series)(x, y)


def of_datasets(x, y):
    library = pytest.importorskip("datasets")

    def pil(value):
        return value if isinstance(value, str) else PIL.Image.fromarray(value)

    x = {name: keras.tree.map_structure(pil, v) for name, v in x.items()}
    made = library.Dataset.from_dict({**x, "y": [0] * ROWS if y is None else y})
    return arrays({k: made[k] for k in x}, y if y is None else made["y"])


def of_grain(x, y):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(Samples(x, y)).batch(BATCH)


def grain_loader(x, y):
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=Samples(x, y),
        sampler=grain.samplers.IndexSampler(ROWS, num_epochs=1, seed=0),
        operations=[grain.transforms.Batch(BATCH)],
    )


class Stream(torch.utils.data.IterableDataset):
    """Samples of which no one knows the number."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return (self.samples[i] for i in range(ROWS))


def dataset(x, y):
    given = x if y is None else (x, y)
    return {"x": tf.data.Dataset.from_tensor_slices(given).batch(BATCH)}


SOURCES = {
    "lists": arrays,
    "PIL": with_pictures(PIL.Image.fromarray),
    "tensors": with_pictures(keras.ops.convert_to_tensor),
    "objects": columns(objects),
    "columns": columns(Column),
    "pandas": table,
    "datasets": of_datasets,
    "generator": lambda x, y: {"x": generator(x, y), "steps": STEPS},
    "PyDataset": lambda x, y: {"x": Batches(x, y)},
    "DataLoader": lambda x, y: {"x": loader(x, y)},
    "DataLoader without length": lambda x, y: {"x": loader(x, y, Stream)},
    "grain MapDataset": lambda x, y: {"x": of_grain(x, y)},
    "grain IterDataset": lambda x, y: {"x": of_grain(x, y).to_iter_dataset()},
    "grain DataLoader": lambda x, y: {"x": grain_loader(x, y)},
}
