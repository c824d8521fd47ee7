"""What a way of training on several devices can do."""

import contextlib

from keras_bridgetower.replicas import BUILT_INSIDE
from keras_bridgetower.replicas import Replicas
from keras_bridgetower.training import rows
from keras_bridgetower.training.stores import OneFile


class Strategy(Replicas):
    """One device; the base of all that `kbt.distribute` returns.

    Attributes:
        count: int, replicas of the model, among which a batch is divided.
        processes: int, processes that train together.
        index: int, which of them this is.
        store: how checkpoints are written, see `stores`.

    Example:

    ```python
    strategy = distribute("none")
    with strategy.scope():
        task = BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    strategy.is_chief  # True
    ```
    """

    store = OneFile()

    @property
    def is_chief(self):
        """Whether this is the one process that writes files."""
        return self.index == 0

    def scope(self):
        """A context in which tasks are built and compiled."""
        return contextlib.nullcontext()

    def dataset(self, dataset, training=True):
        """The rows that this process feeds its replicas with.

        Args:
            dataset: `tf.data.Dataset` of global batches, as on one device.
            training: bool. For training, each batch has the same size, which
                the replicas divide. For `evaluate`, any size is allowed; no
                row is padded, dropped or counted twice.

        Returns:
            `tf.data.Dataset`.

        Raises:
            ValueError: batches that cannot be divided.
        """
        return dataset

    @contextlib.contextmanager
    def gathered(self, task):
        """A context in which every process can read all weights of a task."""
        yield

    def keep_sums(self, metrics):
        """Let metrics that were restored, as `summed` gave them, count once.

        Args:
            metrics: list of variables of metrics.
        """

    def save_to_preset(self, task, preset_dir):
        """Save a task to a new preset folder, from the process that may.

        Every process must call it.

        Args:
            task: a task.
            preset_dir: path of a folder that does not exist yet.
        """
        with self.gathered(task):
            if self.is_chief:
                task.save_to_preset(preset_dir)
        self.wait()

    def any(self, flag):
        """Whether a flag is set in any process. Every process must call it.

        Args:
            flag: bool.

        Returns:
            bool, the same in every process.
        """
        return flag

    def wait(self):
        """Return when every process has come here."""


class Several(Strategy):
    """Abstract: a strategy whose tasks must be built in its scope."""

    def __init__(self):
        self._inside = False

    @property
    def place(self):
        return f"{type(self).__name__} of {self.count} replicas"

    @contextlib.contextmanager
    def scope(self):
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def dataset(self, dataset, training=True):
        if training:
            rows.check_training_batch(dataset, self.count)
        return dataset

    def prepare(self, task):
        super().prepare(task)
        outside = [w.path for w in task.weights if not self.holds(w)]
        if not self._inside or outside:
            raise ValueError(
                BUILT_INSIDE.format(
                    f"{outside[0]!r}, built before or outside"
                    if self._inside
                    else f"{task.name!r} outside"
                )
            )

    def holds(self, variable):
        """Whether a variable was made for the devices of this strategy."""
        return True


def reduce_first(optimizer, reduce):
    """Make an optimizer reduce gradients before it does anything with them.

    Args:
        optimizer: any Keras optimizer.
        reduce: function of a list of tensors, which returns such a list.
    """
    # The class's own: compiled once more, nothing is reduced twice.
    apply = type(optimizer).apply

    def reduced(grads, trainable_variables=None):
        grads = list(grads)
        made = iter(reduce([g for g in grads if g is not None]))
        grads = [None if g is None else next(made) for g in grads]
        return apply(optimizer, grads, trainable_variables)

    optimizer.apply = reduced
