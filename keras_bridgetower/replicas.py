"""What a task asks of the devices that it is trained on.

`kbt.distribute` makes one `Replicas` the current one; tasks ask the current
one and know no engine.
"""

import contextlib

import keras

KERAS_DISTRIBUTION = (
    "`keras.distribution` must not be set with the {backend} backend, which "
    "would ignore it and train on one device. Use "
    "`keras_bridgetower.distribute` or the JAX backend, and reset it: "
    "`keras.distribution.set_distribution(None)`. Received: distribution={d}"
)


class Replicas:
    """One device; the base of what trains on several.

    Attributes:
        count: int, replicas of the model.
        index: int, which of the processes this is.
        processes: int, processes that train together.

    Example:

    ```python
    Replicas().count  # 1
    ```
    """

    count, index, processes = 1, 0, 1

    def prepare(self, task):
        """Check a compiled task and make its optimizer sum over replicas.

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


def set_current(replicas):
    """Train on these from now on."""
    _CURRENT[0] = replicas
