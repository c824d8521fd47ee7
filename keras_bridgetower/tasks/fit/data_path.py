"""All steps from a user's data to batches in `fit`, `evaluate` and `predict`.

1. `validation_split` takes the last rows of arrays away to validate on
   (`split`).
2. Arrays, lists and columns of tables become batches (`array_batches`); with
   `shuffle` in another order in each epoch (`Shuffled`). Whatever else comes
   must be a source of batches already (`batch_sources`).
3. Batches are checked: whether they have an axis of samples, the inputs and
   the labels of the task (`batch_checks`), and without a preprocessor also
   their values (`value_checks`).
4. If several processes train together, each takes its rows of every batch
   (`divided`). In training it must be able to pair them (`check_partners`).
5. A batch gets its number, where the preprocessor draws by it: in training
   the steps that were taken before, otherwise its place (`Steps`).
6. The preprocessor makes features and targets of it. A `tf.data.Dataset` is
   mapped, several batches at a time; other sources are prepared as they are
   read.
7. What is trained on must divide among the devices (`check_training`).
8. Keras reads it, without TensorFlow's tuning (`untuned`). An error ends all
   reading, and arrives as it was raised (`reading`).

`for_training` takes all of these steps but the last. `prepared` takes those
from 2 to 6, which evaluation and prediction need, and `prepared_batch` the
last two of them, for a single batch.
"""

import contextlib
import math

import keras
import numpy as np

from keras_bridgetower.backend import devices
from keras_bridgetower.checks import check_count
from keras_bridgetower.preprocessing.array_batches import batches_of
from keras_bridgetower.preprocessing.array_batches import parts_of
from keras_bridgetower.preprocessing.array_batches import rows_of
from keras_bridgetower.preprocessing.array_batches import sliceable
from keras_bridgetower.preprocessing.close_datasets import closed_on_error
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.tf_datasets import is_dataset
from keras_bridgetower.preprocessing.tf_datasets import mapped
from keras_bridgetower.preprocessing.tf_datasets import numbered
from keras_bridgetower.preprocessing.tf_datasets import untuned
from keras_bridgetower.preprocessing.tf_graph import typed_errors
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.tasks.fit import batch_sources
from keras_bridgetower.tasks.fit import value_checks
from keras_bridgetower.tasks.fit.steps import Shuffled

# As Keras.
BATCH_SIZE = 32


def for_training(task, steps, data, held_out, batch_size, shuffle, given):
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

    Raises:
        ValueError: data that do not fit the task or each other.
    """
    if shuffle is None:
        shuffle = isinstance(data[0], dict)
    check_shuffle(shuffle, data[0])
    validation_data, share = held_out
    _check_held_out(validation_data, share, given)
    if share and validation_data is None:
        # Errors name rows of all data.
        data = (sliceable(data[0]), *data[1:])
        data, validation_data = split(data, share)
    order = Shuffled(rows_of(data[0]), steps) if shuffle else None
    check_epochs(data[0], "steps_per_epoch", given)
    x = prepared(
        task,
        *data,
        batch_size,
        lambda: steps.first,
        order,
        training=True,
        class_weight=given.get("class_weight"),
    )
    devices.current().check_training(x)
    if validation_data is not None:
        check_epochs(validation_data, "validation_steps", given)
        size = given.get("validation_batch_size") or batch_size
        validation_data = for_validation(task, validation_data, size)
    return {"x": x, "validation_data": validation_data, "shuffle": False}


def _check_held_out(validation_data, share, given):
    """Reject arguments about validation that Keras would not read."""
    if share and validation_data is not None:
        raise ValueError(
            "`validation_split` must be left out if there is "
            "`validation_data`, which is what is validated on. Received: "
            f"validation_split={share} and validation_data"
        )
    if validation_data is None:
        arrays = share
    elif isinstance(validation_data, (tuple, list)):
        arrays = isinstance(validation_data[0], dict)
    else:
        arrays = isinstance(validation_data, dict)
    size = given.get("validation_batch_size")
    if size is not None and not arrays:
        raise ValueError(
            "`validation_batch_size` must be left out unless arrays are "
            "validated on: a source of batches has its own. Received: "
            f"validation_batch_size={size} with validation_data of type "
            f"{type(validation_data).__name__}"
        )


def for_validation(task, data, batch_size):
    """Validation data, a source of batches or a tuple, as `prepared`."""
    if not isinstance(data, (tuple, list)):
        data = (data,)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    size = batch_size if isinstance(x, dict) else None
    return prepared(task, x, y, weights, size)


def prepared(
    task,
    x,
    y=None,
    sample_weight=None,
    batch_size=None,
    first=lambda: 0,
    order=None,
    training=False,
    **checked,
):
    """Raw inputs as Keras reads them, each batch preprocessed on its way.

    Args:
        task: the task.
        x: dict of arrays and lists, a dataset, or another source of batches
            as `batch_sources.prepared` takes them.
        y, sample_weight: as `keras.Model.fit`.
        batch_size: int or None.
        first: callable that returns the number of a pass's first batch.
        order: as `batches_of`.
        training: bool, whether the batches are trained on.
        **checked: as `check_batch`.

    Returns:
        A `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator.

    Raises:
        ValueError: another type of data, or some that do not fit the task.
    """
    if isinstance(x, dict):
        size = BATCH_SIZE if batch_size is None else batch_size
        check_count("batch_size", size)
        weights = value_checks.weights_of(sample_weight)
        # No rows have no loss, but predictions.
        least = int(checked.get("labelled", True))
        made = batches_of(sliceable(x), y, weights, int(size), order, least)
        if task.preprocessor is None:
            value_checks.check_features(task, x, y)
        x = made
    else:
        batch_sources.check_source(x, y)
        _check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
    if is_dataset(x):
        batch_checks.check_batches(task, x, **checked)
    x = devices.current().divided(x, training)
    if not is_dataset(x):
        return _prepared_source(task, x, first, checked)
    if training:
        batch_checks.check_partners(task, x)
    if draws(task.preprocessor):
        x = numbered(x, first, devices.current().draw_number)
    return untuned(mapped(x, task.preprocess_samples))


def _prepared_source(task, source, first, checked):
    """As `prepared`, of batches that are no `tf.data`."""

    def prepare(x, y, sample_weight, number):
        if isinstance(x, dict):
            batch_checks.check_arrays(task, x, y, **checked)
            batch_checks.check_lists_of_pictures(task, x)
        return prepared_batch(task, x, y, sample_weight, number)

    made = batch_sources.prepared(source, prepare, first)
    class_weight = checked.get("class_weight")
    if class_weight and not isinstance(made, keras.utils.PyDataset):
        raise ValueError(
            "`class_weight` needs arrays, a dataset or batches of a known "
            "number. Let the source give `(x, y, sample_weight)`. Received: "
            f"class_weight={class_weight!r:.200} with x of type "
            f"{type(source).__name__}"
        )
    return made


def prepared_batch(task, x, y=None, sample_weight=None, number=0):
    """Features and targets of one batch, as Keras takes them.

    Args:
        task: the task.
        x, y, sample_weight: the batch.
        number: int, by which a preprocessor draws, unless `x` brings its own.
    """
    sample_weight = value_checks.weights_of(sample_weight)
    if isinstance(x, dict) and draws(task.preprocessor):
        x = {"step": devices.current().draw_number(number), **x}
    return task.preprocess_samples(x, y, sample_weight)


def without_rows(task, data):
    """Predictions for data without rows, or None where they may have some.

    Args:
        task: the task.
        data: what `prepared` returned.

    Returns:
        NumPy arrays `(0, ...)`, as `predict` of the task returns them.
    """
    if not is_dataset(data) or int(data.cardinality()) != 0:
        return None
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    shapes = {name: tuple(x[name].shape) for name in task.input}
    return no_predictions(task, shapes)


def no_predictions(task, shapes):
    """As `without_rows`, for features of some shapes.

    Args:
        task: the task.
        shapes: dict from the name of each input to its shape.
    """
    inputs = {
        name: keras.KerasTensor((None, *shapes[name][1:]), x.dtype)
        for name, x in task.input.items()
    }
    return keras.tree.map_structure(
        lambda x: np.zeros((0, *(size or 0 for size in x.shape[1:])), x.dtype),
        task.compute_output_spec(inputs),
    )


def is_weighted(x):
    """Whether the batches of a `tf.data.Dataset` have weights of rows."""
    return is_dataset(x) and (
        keras.utils.unpack_x_y_sample_weight(x.element_spec)[2] is not None
    )


def draws(preprocessor):
    """Whether a preprocessor draws, by the number of a batch."""
    ours = isinstance(preprocessor, BridgeTowerPreprocessor)
    return ours and preprocessor.reads_step


@contextlib.contextmanager
def reading(model):
    """A context in which Keras reads data: an error ends all reading of them.

    Args:
        model: the `keras.Model` that reads.
    """
    with closed_on_error(model), typed_errors():
        yield


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
    no_count = given.get(steps) is None
    if epochs > 1 and batch_sources.is_read_once(x) and no_count:
        raise ValueError(
            f"`{steps}` must be set for several epochs of a generator, which "
            "is read once. Or pass a `keras.utils.PyDataset`. "
            f"Received: {steps}=None, epochs={given['epochs']}"
        )


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
