"""All steps from a user's data to batches in `fit`, `evaluate` and `predict`.

1. `validation_split` separates the last rows of arrays (`split`).
2. Arrays, lists and columns of tables become batches (`make_batches`), with
   `shuffle` in a new order in each epoch (`shuffled`). All other data must
   be batches already (`prepared`).
3. Batches are checked: their labels and, without a preprocessor, their values
   (`batch_checks`).
4. If several processes train together, each takes its rows of every batch
   (`Strategy.divided`). In training it must be able to pair them
   (`check_partners`).
5. A batch gets its number, if the preprocessor draws by it: in training the
   number of steps so far, otherwise its position (`Steps`).
6. The preprocessor computes features and targets. A `tf.data.Dataset` is
   mapped, several batches at a time; other sources are prepared as they are
   read (`_prepared_source`).
7. Training data must be divisible among the devices (`check_training`).
8. Keras reads the batches, without TensorFlow's tuning (`untuned`). Errors
   arrive as they were raised, and then all reading ends (`open_source`).

`for_training` takes all of these steps. `prepared` takes steps 2 to 6, which
evaluation and prediction need, `prepared_batch` steps 5 and 6 for one batch,
and `open_source` the last one.
"""

import collections.abc
import contextlib
import logging
import math

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend.keras_private.training import closed_after
from keras_bridgetower.backend.keras_private.training import read_again
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import strategy
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.preprocessing import tf_datasets
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.tf_graph import typed_errors
from keras_bridgetower.tasks import keep_states
from keras_bridgetower.tasks.fit import batch_checks

# The default of Keras.
BATCH_SIZE = 32


@contextlib.contextmanager
def for_training(task, steps, data, validation, batch_size, shuffle, given):
    """A context in which Keras trains on the data that `fit` receives.

    Args:
        task: the task.
        steps: `Steps` of the model.
        data: tuple of `x`, `y` and `sample_weight`.
        validation: tuple of `validation_data` and `validation_split`.
        batch_size, shuffle: as in `keras.Model.fit`.
        given: dict of its other arguments.

    Yields:
        dict of keyword arguments of `keras.Model.fit`.

    Raises:
        ValueError: data that do not fit the task or each other.
    """
    arrays = isinstance(data[0], dict)
    check_choice("shuffle", shuffle, (None, True, False))
    if shuffle and not arrays:
        raise ValueError(
            "`shuffle=True` needs `x` as a dict of arrays; shuffle a dataset "
            f"before it is batched. Received: x of type {type(data[0])}"
        )
    validation_data, share = validation
    _check_validation(validation_data, share, given)
    if share and validation_data is None:
        # Errors name the rows of all data.
        data = (tf_datasets.sliceable(data[0]), *data[1:])
        data, validation_data = split(data, share)
    order = None
    if shuffle or shuffle is None and arrays:
        order = shuffled(tf_datasets.count_rows(data[0]), steps)
    _check_epochs(data[0], "steps_per_epoch", given)
    class_weight = given.get("class_weight")
    x = prepared(
        task, *data, batch_size, steps, order, class_weight=class_weight
    )
    strategy.current().check_training(x)
    weighted = tf_datasets.is_dataset(x) and (
        keras.utils.unpack_x_y_sample_weight(x.element_spec)[2] is not None
    )
    steps.weighted = bool(class_weight) or weighted
    if validation_data is not None:
        _check_epochs(validation_data, "validation_steps", given)
        size = given.get("validation_batch_size") or batch_size
        data = keras.utils.unpack_x_y_sample_weight(validation_data)
        size = size if isinstance(data[0], dict) else None
        validation_data = prepared(task, *data, size)
    with (
        open_source(task, x, class_weight) as x,
        open_source(task, validation_data) as validation_data,
    ):
        yield {"x": x, "validation_data": validation_data, "shuffle": False}


@contextlib.contextmanager
def open_source(task, source, class_weight=None):
    """A context in which Keras reads a source; afterwards all reading ends.

    Args:
        task: the task.
        source: batches that `prepared` returned, or None.
        class_weight: as in `keras.Model.fit`.

    Yields:
        The source as Keras takes it.
    """
    with typed_errors(), closed_after(task, source, class_weight) as source:
        yield source


def _check_validation(validation_data, share, given):
    """Reject arguments about validation that Keras would not read."""
    if share and validation_data is not None:
        raise ValueError(
            "`validation_split` must be left out with `validation_data`. "
            f"Received: validation_split={share} and validation_data"
        )
    arrays = share
    if validation_data is not None:
        x, *_ = keras.utils.unpack_x_y_sample_weight(validation_data)
        arrays = isinstance(x, dict)
    size = given.get("validation_batch_size")
    if size is not None and not arrays:
        raise ValueError(
            "`validation_batch_size` must be left out unless arrays are "
            f"validated on. Received: validation_batch_size={size} with "
            f"validation_data of type {type(validation_data).__name__}"
        )


def prepared(
    task, x, y=None, weights=None, size=None, steps=None, order=None, **checked
):
    """Return raw inputs as Keras reads them, preprocessed batch by batch.

    Args:
        task: the task.
        x: dict of arrays and lists, a dataset, or another source of batches
            such as a `PyDataset`, an iterator, or an iterable that can be
            read again.
        y, weights: labels and weights of rows, as in `keras.Model.fit`.
        size: int, rows of a batch, or None.
        steps: `Steps`, which number the batches if they are trained on.
        order: as in `make_batches`.
        **checked: as in `check_batch`.

    Returns:
        A `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator.

    Raises:
        ValueError: another type of data, or data that do not fit the task.
    """
    kept = {}
    if isinstance(x, dict):
        x, kept = keep_states.separate(task, x, trains=steps is not None)
        size = BATCH_SIZE if size is None else size
        check_count("batch_size", size)
        weights = batch_checks.check_weights(weights)
        # Data without rows have no loss, but have predictions.
        least = int(checked.get("labelled", True))
        batches = tf_datasets.make_batches(
            tf_datasets.sliceable(x), y, weights, int(size), order, least
        )
        if task.preprocessor is None:
            batch_checks.check_values(task, x, y)
        x = batches
    elif any(value is not None for value in (y, weights, size)):
        raise ValueError(
            "`y`, `sample_weight` and `batch_size` must be None unless `x` is "
            "a dict of arrays; batches are `(x, y, sample_weight)`. "
            f"Received: x of type {type(x).__name__}"
        )
    if tf_datasets.is_dataset(x):
        batch_checks.check_batches(task, x, **checked)
    x = strategy.current().divided(x, steps is not None)
    if not tf_datasets.is_dataset(x):
        return _prepared_source(task, x, steps, checked)
    if steps is not None:
        batch_checks.check_partners(task, x)
    draws = steps is not None and any(
        states.identity["variants"] for states in kept.values()
    )
    if draws or _reads_step(task):
        x = tf_datasets.numbered(
            x, lambda: _first(steps), strategy.current().draw_number
        )

    def prepare(x, *labels):
        if kept:
            x = keep_states.restore(task, x, kept, draws)
        return task.preprocess_samples(x, *labels)

    return tf_datasets.mapped(x, prepare)


def _first(steps):
    """Return the number of a pass's first batch."""
    return steps.first if steps else 0


def _prepared_source(task, source, steps, checked):
    """Return batches that are prepared when they are read.

    A `PyDataset` keeps its length, its workers and its epochs; a generator is
    read once.
    """

    def prepare(batch, position):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if isinstance(x, dict):
            batch_checks.check_batched(
                task, {k: _rank(value) for k, value in x.items()}
            )
            batch_checks.check_batch(task, y, **checked)
            batch_checks.check_lists_of_pictures(task, x)
        made = prepared_batch(
            *(task, x, y, weights, _first(steps) + position),
            trains=steps is not None,
            reads_weights=False,
        )
        # Keras rejects tensors of another library than the backend's.
        made = keras.tree.map_structure(
            lambda x: None if x is None else np.asarray(x), made
        )
        return made if isinstance(made, tuple) else (made,)

    def each():
        for position, batch in enumerate(source):
            yield prepare(batch, position)

    if isinstance(source, keras.utils.PyDataset):
        return _Prepared(source, prepare)
    # A torch `DataLoader` raises an error if its length is unknown.
    with contextlib.suppress(TypeError):
        return _Prepared(_InOrder(source), prepare)
    if checked.get("class_weight"):
        raise ValueError(
            "`class_weight` needs arrays, a dataset or batches of a known "
            "number; or let batches be `(x, y, sample_weight)`. Received: x "
            f"of type {type(source).__name__}"
        )
    once = isinstance(source, collections.abc.Iterator)
    return each() if once else read_again(each)


def _rank(value):
    """Return the number of axes, None for lists, which may be ragged."""
    return None if isinstance(value, (list, tuple)) else np.ndim(value)


def prepared_batch(
    task, x, y=None, sample_weight=None, number=0, **kept_states
):
    """Return the features and targets of one batch, as Keras takes them.

    Args:
        task: the task.
        x, y, sample_weight: the batch.
        number: int that determines the preprocessor's random draws, unless
            `x` contains its own.
        **kept_states: as in `keep_states.separate`.
    """
    sample_weight = batch_checks.check_weights(sample_weight)
    if isinstance(x, dict):
        x, kept = keep_states.separate(task, x, **kept_states)
        if _reads_step(task):
            x = {"step": strategy.current().draw_number(number), **x}
        if kept:
            x = keep_states.restore(task, x, kept)
    return task.preprocess_samples(x, y, sample_weight)


def without_rows(task, data):
    """Return predictions for data without rows, or None if they may have some.

    Args:
        task: the task.
        data: the result of `prepared`.

    Returns:
        NumPy arrays `(0, ...)`, as the task's `predict` returns them.
    """
    if not tf_datasets.is_dataset(data) or int(data.cardinality()) != 0:
        return None
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data.element_spec)
    shapes = {name: tuple(x[name].shape) for name in task.input}
    return no_predictions(task, shapes)


def no_predictions(task, shapes):
    """Return predictions `(0, ...)` for features of some shapes.

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


def _reads_step(task):
    ours = isinstance(task.preprocessor, BridgeTowerPreprocessor)
    return ours and task.preprocessor.reads_step


def split(data, share):
    """Split arrays into rows to train on and their last rows to validate.

    Args:
        data: tuple of `x`, `y` and `sample_weight`.
        share: float, share of the rows to validate.

    Returns:
        Two tuples like `data`.

    Raises:
        ValueError: a part without rows, or `x` that is not arrays.
    """
    if not isinstance(data[0], dict):
        raise ValueError(
            "`validation_split` needs `x` as a dict of arrays; else pass "
            f"`validation_data`. Received: x of type {type(data[0]).__name__}"
        )
    rows = tf_datasets.count_rows(data[0])
    count = math.floor(rows * (1 - share))
    parts = [tf_datasets.split_rows(part, count) for part in data]
    return tuple(zip(*parts, strict=True))


def _check_epochs(x, steps, given):
    """Reject several epochs of a generator, unless their length is set.

    Keras would repeat its first two batches in all epochs but the first.

    Args:
        x: training or validation data.
        steps: str, the argument of `fit` that sets the batches per epoch.
        given: dict of arguments of `fit`.
    """
    epochs = given.get("epochs", 1) - given.get("initial_epoch", 0)
    once = isinstance(x, collections.abc.Iterator)
    if epochs > 1 and once and given.get(steps) is None:
        raise ValueError(
            f"`{steps}` must be set for several epochs of a generator. "
            f"Received: {steps}=None, epochs={given['epochs']}"
        )


class _Prepared(keras.utils.PyDataset):
    """Batches of another `PyDataset`, prepared when they are read."""

    def __init__(self, source, prepare):
        super().__init__(
            workers=source.workers,
            use_multiprocessing=source.use_multiprocessing,
            max_queue_size=source.max_queue_size,
        )
        self._source, self._prepare = source, prepare

    @property
    def num_batches(self):
        return self._source.num_batches

    def __getitem__(self, index):
        return self._prepare(self._source[index], index)

    def on_epoch_begin(self):
        self._source.on_epoch_begin()

    def on_epoch_end(self):
        self._source.on_epoch_end()


class _InOrder(keras.utils.PyDataset):
    """Batches of an iterable that can be read again from its start.

    Keras requests batches in order; the first one restarts the iterable.
    """

    def __init__(self, source):
        super().__init__()
        self._source, self._count = source, len(source)
        self._batches = None

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        if index == 0:
            self._batches = iter(self._source)
        return next(self._batches)


_LOG = logging.getLogger(__name__)
# The loss of an untrained head, which gives every answer the logit 0.
_UNTRAINED = {
    VQALoss: lambda answers: answers * math.log(2),
    keras.losses.SparseCategoricalCrossentropy: math.log,
}


class Steps(keras.callbacks.Callback):
    """Tracks the number of training steps at the start of an epoch.

    Random draws for a step then depend on a seed and the step alone, so that
    a continued run draws as one that was never interrupted.

    Args:
        optimizer: the model's optimizer, which counts its steps; or None.

    Attributes:
        weighted: bool, whether rows have weights, and so the loss.
    """

    def __init__(self, optimizer):
        super().__init__()
        self.weighted = False
        self._optimizer = optimizer
        self._epochs = 0
        self.first = self._steps_taken()

    def on_epoch_end(self, epoch, logs=None):
        strategy.current().check_order()
        self._epochs += 1
        if self._epochs == 1 and not self.weighted:
            warn_if_worse_than_untrained(self.model, (logs or {}))

    def on_epoch_begin(self, epoch, logs=None):
        # Not counted from batch to batch: a callback may have restored a run,
        # and the last of several steps in one execution may be missing.
        self.first = self._steps_taken()

    def _steps_taken(self):
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


def shuffled(count, steps):
    """Return a function that draws a new order of the rows in each epoch.

    Args:
        count: int, of the rows.
        steps: `Steps`.
    """
    # `keras.utils.set_random_seed` decides it, as all that Keras draws.
    seed = np.random.randint(2**31)
    # All processes of a run need one order, so they use that of the first.
    seed = int(strategy.current().gather_text(str(seed))[0])

    def order():
        rng = np.random.default_rng([seed, steps.first])
        return rng.permutation(count).astype("int64")

    return order


def warn_if_worse_than_untrained(task, logs):
    """Warn if the first epoch's loss is far worse than that of no training.

    Soft scores and ids do not name their class. If they were made for another
    list than the task's, and came without names, only the loss shows it.

    Args:
        task: the task.
        logs: dict, the logs of the first epoch.
    """
    kind = type(getattr(task, "loss", None))
    penalized = any(
        getattr(w, "regularizer", None) for w in task.trainable_variables
    )
    if kind not in _UNTRAINED or not task.class_names or penalized:
        return
    found = float(logs.get("loss", 0))
    start = _UNTRAINED[kind](len(task.class_names))
    if found > 1.5 * start:
        _LOG.warning(
            "The loss of the first epoch, %.1f, is far above the %.1f of a "
            "head that knows nothing. Either the learning rate is too high, or "
            "the ids or the columns of scores in `y` are not in the order of "
            "`task.class_names`. Strings in `y` are found by their names.",
            found,
            start,
        )


class Sizes(keras.callbacks.Callback):
    """Counts the rows of each batch that is predicted."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_predict_batch_end(self, batch, logs=None):
        # Keras flattens a dict of outputs into the logs, and passes outputs
        # of one value as numbers.
        first = keras.tree.flatten(logs)[0]
        self.rows.append(len(first) if getattr(first, "shape", ()) else 1)


def with_callback(callbacks, own):
    """Return callbacks as Keras takes them, with one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(own)
        return callbacks
    return [own, *(c for c in keras.tree.flatten(callbacks) if c is not None)]
