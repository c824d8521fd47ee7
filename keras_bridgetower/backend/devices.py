"""Interface between tasks and the devices that they are trained on.

`kbt.distribute` sets the current `Replicas`. Tasks call its methods, and so do
not depend on how each framework distributes.
"""

import contextlib

import keras

from keras_bridgetower.backend.keras_private.updates import count_updates
from keras_bridgetower.backend.keras_private.updates import holds_others
from keras_bridgetower.backend.precision import build_once


class BuiltElsewhere(ValueError):
    """A task was built or compiled for other devices than the current ones."""

    def __init__(self, received):
        super().__init__(
            "A task must be built and compiled inside of `strategy.scope()`, "
            f"after `distribute`. Received: {received}"
        )


class Replicas:
    """One device; the base class for several devices.

    Attributes:
        place: str, name of the devices. A task must be trained in the place
            that it was compiled for.
        count: int, number of replicas of the model.
        index: int, number of this process, from 0.
        processes: int, number of processes that train together.

    Example:

    ```python
    Replicas().count  # 1
    ```
    """

    place, count, index, processes = "one device", 1, 0, 1

    def prepare(self, task):
        """Check a compiled task, and prepare its optimizer for the replicas.

        The optimizer then sums gradients over all replicas. If it accumulates
        gradients, its schedule and averages count updates, not batches.

        Args:
            task: a task, at the end of its `compile`.

        Raises:
            ValueError: settings that these devices do not support.
        """
        distribution = keras.distribution.distribution()
        if keras.config.backend() != "jax" and distribution is not None:
            raise ValueError(
                "`keras.distribution` must not be set except on JAX. Use "
                f"`keras_bridgetower.distribute`. Received: {distribution}"
            )
        optimizer = task.optimizer
        if optimizer is None:
            return
        if holds_others(optimizer):
            # It may create its optimizers only now.
            build_once(optimizer, task.trainable_variables)
        count_updates(optimizer)

    def check_training(self, dataset):
        """Raise unless the replicas can divide every batch of a dataset.

        Args:
            dataset: the training data, as Keras reads them.

        Raises:
            ValueError: batches of unknown size, or that cannot be divided.
        """

    def divided(self, source, training):
        """Return the batches of a source for the replicas of this process.

        Args:
            source: batches before preprocessing.
            training: bool, True for batches to train on.

        Returns:
            The source, or a `tf.data.Dataset` of this process's rows.

        Raises:
            ValueError: batches that cannot be divided.
        """
        return source

    def run(self, method, model, *args, **kwargs):
        """Call a method of `keras.Model` that trains, evaluates or predicts.

        Args:
            method: str, its name, such as `"fit"`.
            model: a `keras.Model`.
            *args, **kwargs: as for the method.
        """
        return getattr(keras.Model, method)(model, *args, **kwargs)

    def check_order(self):
        """Raise if processes have read their batches in different orders.

        Every process must call it.

        Raises:
            ValueError: in every process.
        """

    def gather_text(self, text):
        """Gather a text of each process. Every process must call it.

        Args:
            text: str, of this process.

        Returns:
            list of str, in the order of the processes, the same in each.
        """
        return [text]

    def draw_number(self, step):
        """Return the number that seeds random values of a batch.

        Args:
            step: int or scalar tensor, the number of the batch.

        Returns:
            As `step`. Processes that read different samples get different
            numbers.
        """
        return step

    def readable_outputs(self, outputs):
        """Return the outputs of a prediction step as Keras can read them."""
        return outputs

    def gather_predictions(self, x, outputs, sizes):
        """Gather the predictions of all processes, in the order of the rows.

        Args:
            x: the data passed to `predict`.
            outputs: nested structure of NumPy arrays `(samples, ...)`, the
                predictions for the samples of this process.
            sizes: list of ints, its number of samples in each batch.

        Returns:
            The structure for the samples of all processes.
        """
        return outputs

    def summed(self, metrics):
        """Return a context in which metrics are summed over all replicas.

        Args:
            metrics: list of the variables of metrics.

        Returns:
            A context manager.
        """
        return contextlib.nullcontext()


_CURRENT = [Replicas()]


def current():
    """Return the `Replicas` that tasks are trained on."""
    return _CURRENT[0]


def set_current(replicas):
    """Make these the current replicas."""
    _CURRENT[0] = replicas
