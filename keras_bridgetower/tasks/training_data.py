"""What `fit`, `evaluate` and `predict` are given, as datasets of batches."""

import math

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import devices
from keras_bridgetower.preprocessing.datasets import batches_of
from keras_bridgetower.preprocessing.datasets import is_dataset
from keras_bridgetower.preprocessing.datasets import mapped
from keras_bridgetower.preprocessing.datasets import numbered
from keras_bridgetower.preprocessing.datasets import parts_of
from keras_bridgetower.preprocessing.datasets import rows_of
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.raw_inputs import sliceable
from keras_bridgetower.tasks import value_checks
from keras_bridgetower.tasks.batch_sources import check_source
from keras_bridgetower.tasks.batch_sources import is_read_once
from keras_bridgetower.tasks.batch_sources import prepared
from keras_bridgetower.tasks.first_epoch import tell_if_worse_than_nothing
from keras_bridgetower.tasks.input_checks import check_arrays
from keras_bridgetower.tasks.input_checks import check_batches
from keras_bridgetower.tasks.input_checks import check_lists_of_pictures
from keras_bridgetower.tasks.input_checks import check_partners

# As Keras.
BATCH_SIZE = 32


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
            tell_if_worse_than_nothing(self.model, (logs or {}))

    def on_epoch_begin(self, epoch, logs=None):
        # Not counted from batch to batch: a callback may have restored a run,
        # and the last of several steps in one execution may be missing.
        self.first = self._taken()

    def _taken(self):
        if self._optimizer is None:
            return 0
        # `iterations` are updates, each perhaps of several steps, and one may
        # have begun: "batches" counts those where `tf.distribute` accumulates.
        # An optimizer may hold another, with a count of its own.
        counts = [
            v
            for v in self._optimizer.variables
            if v.name in ("iteration", "batches")
        ]
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
            value_checks.check_features(task, x, y)
        x = made
    else:
        check_source(x, y)
        _check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
    if is_dataset(x):
        check_batches(task, x, **checked)
        if draws(task.preprocessor):
            x = numbered(x, first, devices.current().number)
        return mapped(x, task.preprocess_samples)

    def prepare(x, y, sample_weight, number):
        if isinstance(x, dict):
            check_arrays(task, x, y, **checked)
            check_lists_of_pictures(task, x)
        x = with_number(task, x, number)
        return task.preprocess_samples(x, y, sample_weight)

    made = prepared(x, prepare, first)
    if checked.get("class_weight") and not isinstance(
        made, keras.utils.PyDataset
    ):
        raise ValueError(
            "`class_weight` needs arrays, a dataset or batches of a known "
            "number. Let the source give `(x, y, sample_weight)`. Received: "
            f"class_weight={checked['class_weight']!r:.200} with x of type "
            f"{type(x).__name__}"
        )
    return made


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


def training(task, steps, data, held_out, batch_size, shuffle, given):
    """Arguments of `keras.Model.fit` for what `fit` of a task is given.

    Args:
        task: the task.
        steps: `Steps` of the model.
        data: tuple of `x`, `y` and `sample_weight`.
        held_out: tuple of `validation_data` and `validation_split`.
        batch_size, shuffle: as `keras.Model.fit`.
        given: dict of its other arguments.

    Returns:
        dict of keyword arguments.
    """
    check_shuffle(shuffle, data[0])
    validation_data, share = held_out
    if share and validation_data is None:
        data, validation_data = split(data, share)
    order = Shuffled(rows_of(data[0]), steps) if shuffle else None
    check_epochs(data[0], "steps_per_epoch", given)
    x = reading(
        task,
        *data,
        batch_size,
        lambda: steps.first,
        order,
        class_weight=given.get("class_weight"),
    )
    devices.current().check_training(x)
    check_partners(task, data[0])
    if validation_data is not None:
        check_epochs(validation_data, "validation_steps", given)
        size = given.get("validation_batch_size") or batch_size
        validation_data = validation(task, validation_data, size)
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
    parts = [parts_of(part, count) for part in data]
    return tuple(zip(*parts, strict=True))


def draws(preprocessor):
    """Whether a preprocessor draws, by the number of a batch."""
    ours = isinstance(preprocessor, BridgeTowerPreprocessor)
    return ours and preprocessor.reads_step


def with_number(task, x, number):
    """A batch with its number, where the preprocessor draws by it."""
    if not isinstance(x, dict) or not draws(task.preprocessor):
        return x
    return {"step": devices.current().number(number), **x}


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


def check_epochs(x, steps, given):
    """Refuse several epochs of what is read once.

    Keras would repeat its first two batches in all epochs but the first.

    Args:
        x: a source of batches, or another thing.
        steps: str, the argument of `fit` that says how many of them an epoch
            takes.
        given: dict of arguments of `fit`.
    """
    epochs = given.get("epochs", 1) - given.get("initial_epoch", 0)
    if is_read_once(x) and epochs > 1 and given.get(steps) is None:
        raise ValueError(
            f"`{steps}` must be set for several epochs of a generator, which "
            "is read once. Or pass a `keras.utils.PyDataset`. "
            f"Received: {steps}=None, epochs={given['epochs']}"
        )
