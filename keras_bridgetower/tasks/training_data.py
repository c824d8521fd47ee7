"""What `fit`, `evaluate` and `predict` are given, as datasets of batches."""

import math

import keras
import numpy as np
from keras import ops

from keras_bridgetower.preprocessing.datasets import batches_of
from keras_bridgetower.preprocessing.datasets import is_dataset
from keras_bridgetower.preprocessing.datasets import mapped
from keras_bridgetower.preprocessing.datasets import numbered
from keras_bridgetower.preprocessing.datasets import parts_of
from keras_bridgetower.preprocessing.datasets import rows_of
from keras_bridgetower.preprocessing.datasets import untuned
from keras_bridgetower.preprocessing.graph import shape_of_rows
from keras_bridgetower.preprocessing.graph import typed_errors
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.raw_inputs import sliceable
from keras_bridgetower.tasks import samples
from keras_bridgetower.tasks.inference import FirstStep
from keras_bridgetower.tasks.samples import check_batch
from keras_bridgetower.tasks.samples import check_batches
from keras_bridgetower.tasks.samples import check_values
from keras_bridgetower.tasks.sources import check_source
from keras_bridgetower.tasks.sources import prepared

# As Keras.
BATCH_SIZE = 32


class ReadsUntuned(keras.Model):
    """Training and prediction on datasets as `untuned` leaves them.

    As the last base of a task it comes after KerasHub's classes, which would
    preprocess once more.
    """

    def fit(self, x=None, *args, validation_data=None, **kwargs):
        with typed_errors():
            return super().fit(
                untuned(x),
                *args,
                validation_data=untuned(validation_data),
                **kwargs,
            )

    def evaluate(self, x=None, *args, **kwargs):
        with typed_errors():
            return super().evaluate(untuned(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        with typed_errors():
            return super().predict(untuned(x), *args, **kwargs)


class Steps(keras.callbacks.Callback):
    """Knows how many steps a model has been trained at the start of an epoch.

    Whatever is drawn for a step then depends on nothing but a seed and the
    step: a run that is continued draws as one that was never interrupted.

    Args:
        optimizer: the model's optimizer, which counts its steps; or None.
    """

    def __init__(self, optimizer):
        super().__init__()
        self._optimizer = optimizer
        self._epochs = 0
        self.first = self._taken()

    def on_epoch_end(self, epoch, logs=None):
        self._epochs += 1
        if self._epochs == 1:
            samples.tell_if_worse_than_nothing(self.model, (logs or {}))

    def on_epoch_begin(self, epoch, logs=None):
        # Not counted from batch to batch: a callback may have restored a run,
        # and the last of several steps in one execution may be missing.
        self.first = self._taken()

    def _taken(self):
        if self._optimizer is None:
            return 0
        # `iterations` are updates, each perhaps of several steps, and one may
        # have begun. An optimizer may hold another, with a count of its own.
        counts = [v for v in self._optimizer.variables if v.name == "iteration"]
        return max(int(ops.convert_to_numpy(count)) for count in counts)


class Shuffled:
    """Orders of rows, each drawn for an epoch of its own.

    Args:
        count: int, of the rows.
        steps: `Steps`.
    """

    def __init__(self, count, steps):
        self.count = count
        self.steps = steps
        # As all that Keras draws, by `keras.utils.set_random_seed`.
        self.seed = np.random.randint(2**31)

    def __call__(self):
        rng = np.random.default_rng([self.seed, self.steps.first])
        return rng.permutation(self.count).astype("int64")


def reading(
    task,
    x,
    y=None,
    sample_weight=None,
    batch_size=None,
    first=lambda: 0,
    order=None,
    **checked,
):
    """Raw inputs as Keras reads them, each batch preprocessed on its way.

    Args:
        task: the task.
        x: dict of arrays and lists, a dataset, or another source of batches
            as `prepared` takes them.
        y, sample_weight: as `keras.Model.fit`.
        batch_size: int or None.
        first: callable that returns the number of a pass's first batch.
        order: as `batches_of`.
        **checked: as `check_batch`.

    Returns:
        A `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator.

    Raises:
        ValueError: another type of data, or some that do not fit the task.
    """
    if isinstance(x, dict):
        size = batch_size or BATCH_SIZE
        made = batches_of(sliceable(x), y, sample_weight, size, order)
        if task.preprocessor is None:
            check_values(task, x, y)
        x = made
    else:
        check_source(x)
        _check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
    if is_dataset(x):
        check_batches(task, x, **checked)
        x = numbered(x, first) if draws(task.preprocessor) else x
        return mapped(x, task.preprocess_samples)

    def prepare(x, y, sample_weight, number):
        if isinstance(x, dict):
            shapes = {name: shape_of_rows(rows) for name, rows in x.items()}
            check_batch(task, shapes, y is None, **checked)
            if draws(task.preprocessor):
                x = {"step": number, **x}
        return task.preprocess_samples(x, y, sample_weight)

    return prepared(x, prepare, first)


def _check_alone(x, **given):
    """Refuse what batches hold themselves."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"`{name}` goes with `x` as a dict of arrays or lists only; a "
                "source of batches, `(x, y)` or `(x, y, sample_weight)`, has "
                f"its own. Received: {name} besides x of type "
                f"{type(x).__name__}"
            )


def training(task, steps, data, held_out, batch_sizes, shuffle, class_weight):
    """Arguments of `keras.Model.fit` for what `fit` of a task is given.

    Args:
        task: the task.
        steps: `Steps` of the model.
        data: tuple of `x`, `y` and `sample_weight`.
        held_out: tuple of `validation_data` and `validation_split`.
        batch_sizes: tuple of those to train and to validate with, or None.
        shuffle, class_weight: as `keras.Model.fit`.

    Returns:
        dict of keyword arguments.
    """
    check_shuffle(shuffle, data[0])
    validation_data, share = held_out
    if share and validation_data is None:
        data, validation_data = split(data, share)
    order = Shuffled(rows_of(data[0]), steps) if shuffle else None
    size, validation_size = batch_sizes
    x = reading(
        task,
        *data,
        size,
        lambda: steps.first,
        order,
        class_weight=class_weight,
    )
    if validation_data is not None:
        validation_data = validation(
            task, validation_data, validation_size or size
        )
    return {"x": x, "validation_data": validation_data, "shuffle": False}


def validation(task, data, batch_size):
    """Validation data, a source of batches or a tuple, as `reading`."""
    if not isinstance(data, (tuple, list)):
        data = (data,)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    size = batch_size if isinstance(x, dict) else None
    return reading(task, x, y, weights, size)


def split(data, share):
    """The first rows of arrays to train on, and the last ones to validate.

    Args:
        data: tuple of `x`, `y` and `sample_weight`.
        share: float, part of the rows that is left to validate.

    Returns:
        Two tuples like `data`.

    Raises:
        ValueError: a part without rows, or what is no arrays.
    """
    if not isinstance(data[0], dict):
        raise ValueError(
            "`validation_split` needs `x` as a dict of arrays or lists. Pass "
            "`validation_data` besides a dataset. Received: x of type "
            f"{type(data[0]).__name__}"
        )
    rows = rows_of(data[0])
    count = math.floor(rows * (1 - share))
    if not 0 < count < rows:
        raise ValueError(
            "`validation_split` must leave rows to train on and rows to "
            f"validate. Received: validation_split={share}, {rows} rows"
        )
    parts = [parts_of(values, count) for values in data]
    return tuple(zip(*parts, strict=True))


def draws(preprocessor):
    """Whether a preprocessor draws, by the number of a batch."""
    ours = isinstance(preprocessor, BridgeTowerPreprocessor)
    return ours and preprocessor.reads_step


def check_shuffle(shuffle, x):
    """Refuse to shuffle what has an order of its own."""
    if shuffle not in (False, True):
        raise ValueError(
            f"`shuffle` must be True or False. Received: shuffle={shuffle!r}"
        )
    if shuffle and not isinstance(x, dict):
        raise ValueError(
            "`shuffle=True` needs `x` as a dict of arrays or lists. Shuffle a "
            "dataset yourself, as by `dataset.shuffle(1000)` before it is "
            f"batched. Received: x of type {type(x).__name__}"
        )


def with_callback(callbacks, own):
    """Callbacks as Keras takes them, with one more, and a `FirstStep`."""
    first = FirstStep()
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(own)
        callbacks.append(first)
        return callbacks
    return [
        own,
        first,
        *(c for c in keras.tree.flatten(callbacks) if c is not None),
    ]
