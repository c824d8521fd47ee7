"""What a task asks of the devices that it is trained on.

`kbt.distribute` makes one `Replicas` the current one; tasks ask the current
one and know no engine.
"""

import contextlib

import keras

from keras_bridgetower.backend import keras_patches_updates

KERAS_DISTRIBUTION = (
    "`keras.distribution` must not be set with the {backend} backend, which "
    "would ignore it and train on one device. Use "
    "`keras_bridgetower.distribute` or the JAX backend, and reset it: "
    "`keras.distribution.set_distribution(None)`. Received: distribution={d}"
)

BUILT_INSIDE = (
    "A task must be built and compiled inside of `strategy.scope()`, after "
    "`distribute`. Received: {}"
)


class Replicas:
    """One device; the base of what trains on several.

    Attributes:
        place: str, on what a task is trained; another one's weights and
            optimizer do not fit it.
        count: int, replicas of the model.
        index: int, which of the processes this is.
        processes: int, processes that train together.

    Example:

    ```python
    Replicas().count  # 1
    ```
    """

    place, count, index, processes = "one device", 1, 0, 1

    def prepare(self, task):
        """Check a compiled task; its optimizer sums over replicas from now on.

        Where that accumulates gradients, it counts updates.

        Args:
            task: a task whose `compile` just ran.

        Raises:
            ValueError: settings that this engine would ignore or break at.
        """
        distribution = keras.distribution.distribution()
        if keras.config.backend() != "jax" and distribution is not None:
            raise ValueError(
                KERAS_DISTRIBUTION.format(
                    backend=keras.config.backend(), d=distribution
                )
            )
        if task.optimizer is not None:
            keras_patches_updates.count_updates(task.optimizer)

    def check_training(self, dataset):
        """Raise unless what `fit` is given divides among the replicas.

        Args:
            dataset: what Keras is going to read.

        Raises:
            ValueError: it is not known to.
        """

    def step_of_process(self, step):
        """By which number this process draws for a batch.

        Args:
            step: int or scalar tensor, the number of the batch.

        Returns:
            As `step`, another one in each process that reads rows of its own.
        """
        return step

    def readable(self, made):
        """What a step of prediction returns, so that Keras can read it."""
        return made

    def all_predictions(self, x, outputs, sizes):
        """Predictions of all processes, in the order of the global batches.

        Args:
            x: what was predicted.
            outputs: nested structure of NumPy arrays `(rows, ...)`, of the
                rows of this process.
            sizes: list of ints, how many rows of each batch it had.

        Returns:
            The structure, of the rows of all processes.
        """
        return outputs

    def summed(self, metrics):
        """A context in which metrics hold what all replicas have seen.

        Args:
            metrics: list of variables of metrics.

        Returns:
            A context manager.
        """
        return contextlib.nullcontext()


_CURRENT = [Replicas()]


def current():
    """The `Replicas` that tasks are trained on."""
    return _CURRENT[0]


def check_compiled(task, place):
    """Raise unless a task is trained on what it was compiled for.

    Args:
        task: a task.
        place: str, the `place` that was current then.

    Raises:
        ValueError: another one is current.
    """
    now = current().place
    if place != now:
        raise ValueError(
            BUILT_INSIDE.format(
                f"{task.name!r}, compiled for {place}, to run on {now}"
            )
        )


def set_current(replicas):
    """Train on these from now on."""
    _CURRENT[0] = replicas
