"""What `fit`, `evaluate` and `predict` read: all as from a `tf.data.Dataset`.

Each backend has ways of its own to read what Keras takes, so all of them run
this, PyTorch with every task.
"""

import every_task
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import torch
from builders import array
from builders import shallow
from every_task import BATCH
from every_task import TASKS
from every_task import row
from every_task import rows

from keras_bridgetower import keras_patches

ROWS, EPOCHS = 4, 2
STEPS = ROWS // BATCH
ON_TORCH = keras.config.backend() == "torch"
FASTEST = pytest.mark.skipif(
    not ON_TORCH, reason="the same code with every backend"
)
SOME = ("retrieval", "text_classifier")
ALWAYS = ("PyDataset", "DataLoader")


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
        # Of lists it would make lists of batches.
        x = {k: _stacked(row(v, index)) for k, v in self.x.items()}
        return x if self.y is None else (x, row(self.y, index))


def _stacked(values):
    return np.stack(values) if isinstance(values, list) else values


def generator(x, y):
    batches = Batches(x, y)
    for _ in range(EPOCHS):
        yield from (batches[i] for i in range(STEPS))


def loader(x, y):
    return torch.utils.data.DataLoader(Samples(x, y), BATCH)


def arrays(x, y):
    return {"x": x, "batch_size": BATCH} | ({} if y is None else {"y": y})


def with_pictures(function):
    def source(x, y):
        nested = keras.tree.map_structure(function, x["images"])
        return arrays({**x, "images": nested}, y)

    return source


SOURCES = {
    "arrays": arrays,
    "PIL": with_pictures(PIL.Image.fromarray),
    "generator": lambda x, y: {"x": generator(x, y), "steps": STEPS},
    "PyDataset": lambda x, y: {"x": Batches(x, y)},
    "workers": lambda x, y: {"x": Batches(x, y, workers=2)},
    "DataLoader": lambda x, y: {"x": loader(x, y)},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Tasks, their raw inputs, and what they make of a dataset of files."""
    backbone, made = shallow(), {}
    folder = tmp_path_factory.mktemp("pictures")

    def get(name):
        if name not in made:
            task = every_task.build(name, backbone)
            task.start = values(task)
            x, y = every_task.raw(name), TASKS[name].y
            files = {**x}
            if "images" in x:
                files["images"] = stored(x["images"], folder / name)
            made[name] = task, x, y, results(task, dataset, files, y)
        return made[name]

    return get


def stored(images, path):
    """Paths of files of the pictures."""
    if isinstance(images, list):
        each = enumerate(images)
        return [
            stored(im, path.with_name(f"{path.name}_{i}")) for i, im in each
        ]
    PIL.Image.fromarray(images).save(path.with_suffix(".png"))
    return str(path.with_suffix(".png"))


def dataset(x, y):
    given = x if y is None else (x, y)
    return {"x": tf.data.Dataset.from_tensor_slices(given).batch(BATCH)}


def values(task):
    variables = [*task.weights, *task.optimizer.variables]
    return [array(v) for v in variables]


def results(task, source, x, y):
    """Outputs; losses and metrics; and what two epochs lead to."""

    def ask(method, y=y, **kwargs):
        variables = [*task.weights, *task.optimizer.variables]
        for variable, start in zip(variables, task.start, strict=True):
            variable.assign(start)
        given = source(x, y)
        if method == task.fit and "steps" in given:
            given["steps_per_epoch"] = given.pop("steps")
        return method(**given, verbose=0, **kwargs)

    outputs = ask(task.predict, y=None)
    scores = ask(task.evaluate, return_dict=True)
    history = ask(task.fit, epochs=EPOCHS).history
    return outputs, scores, history, values(task)


def check_same(found, expected):
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def cases():
    """Each source in each task, in the long version; a part of them always."""
    for name, case in TASKS.items():
        for source in SOURCES:
            if source == "PIL" and "images" not in case.names:
                continue
            quick = name in SOME or ON_TORCH and source in ALWAYS
            marks = () if quick else pytest.mark.slow
            yield pytest.param(name, source, marks=marks)


@pytest.mark.parametrize("name, source", cases())
def test_raw_inputs(name, source, asked):
    task, x, y, expected = asked(name)
    check_same(results(task, SOURCES[source], x, y), expected)


@pytest.mark.parametrize("name", SOME if ON_TORCH else SOME[1:])
def test_features(name, asked):
    task, x, y, _ = asked(name)
    made = [
        task.preprocess_samples(*(rows(v, i, i + BATCH) for v in (x, y)))
        for i in range(0, ROWS, BATCH)
    ]
    x, y = keras.tree.map_structure(lambda *v: np.concatenate(v), *made)
    preprocessor, task.preprocessor = task.preprocessor, None
    try:
        expected = results(task, dataset, x, y)
        for source in ("arrays", "generator", "PyDataset", "DataLoader"):
            check_same(results(task, SOURCES[source], x, y), expected)
    finally:
        task.preprocessor = preprocessor


@pytest.mark.parametrize("name", TASKS)
@FASTEST
def test_all_layers_are_built(name, asked):
    """Or Keras would read a batch before it predicts, and lose its place."""
    task, *_ = asked(name)
    layers = keras_patches.layers_in(task.preprocessor)
    assert [layer for layer in layers if not layer.built] == []


@FASTEST
def test_a_py_dataset_stays_one(asked):
    task, x, y, _ = asked("text_classifier")
    data, held_out = Batches(x, y), Batches(x, y)
    history = task.fit(data, validation_data=held_out, epochs=2, verbose=0)
    assert data.ended >= 2 and len(history.history["val_loss"]) == 2
    last = task.evaluate(x, y, batch_size=BATCH, return_dict=True, verbose=0)
    assert history.history["val_loss"][-1] == last["loss"]
    # As Keras weighs classes of a `PyDataset`.
    weights = {0: 1.0, 1: 2.0, 2: 0.5}
    assert task.fit(data, class_weight=weights, verbose=0)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield {"text": "is it red?"}, 1


ROW = {"image": np.zeros((8, 8, 3), "uint8"), "question": "is it red?"}


@FASTEST
@pytest.mark.parametrize(
    "verb, given, message",
    [
        ("fit", {"x": [ROW] * 2, "y": ["a"]}, "make columns.*row.*type list"),
        ("evaluate", {"x": [ROW]}, "make columns"),
        ("predict", {"x": [ROW]}, "make columns"),
        ("predict", {"x": ["is it red?"]}, "dict of arrays.*type list"),
        ("predict", {"x": np.zeros(3)}, "dict of arrays.*type ndarray"),
        ("predict", {"x": "is it red?"}, "dict of arrays.*type str"),
        ("fit", {"x": None}, "dict of arrays.*type NoneType"),
        ("fit", {"x": iter([]), "y": [1]}, "`y` goes with.*type list_iter"),
        ("predict", {"x": iter([]), "batch_size": 2}, "`batch_size` goes with"),
        ("fit", {"x": iter([({"text": ["a"]},)])}, "`y` must hold.*y=None"),
        ("predict", {"x": iter([{"text": "a"}])}, r"Batch it.*shape \(\)"),
        ("predict", {"x": iter([{"text": [" "]}])}, r"not be empty.*text\[0\]"),
    ],
)
def test_one_error(verb, given, message, asked):
    task, *_ = asked("text_classifier")
    with pytest.raises(ValueError, match=message):
        getattr(task, verb)(**given)


def test_a_loader_without_length(asked):
    task, *_ = asked("text_classifier")
    data = torch.utils.data.DataLoader(Endless(), BATCH)
    assert len(task.fit(data, steps_per_epoch=3, verbose=0).history["loss"])
    outputs = task.predict(data, steps=3, verbose=0)
    assert len(outputs) == 3 * BATCH
