"""What a way of training on several devices can do."""

import contextlib

from keras_bridgetower.backend.devices import BUILT_INSIDE
from keras_bridgetower.backend.devices import Replicas
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution import process_share


class Strategy(Replicas):
    """One device; the base of all that `kbt.distribute` returns.

    Attributes:
        count: int, replicas of the model, among which a batch is divided.
        processes: int, processes that train together.
        index: int, which of them this is.
        store: str, how checkpoints are written: a name of
            `training.runs.stores`.

    Example:

    ```python
    strategy = distribute("none")
    with strategy.scope():
        task = BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    strategy.is_chief  # True
    ```
    """

    store = "file"
    # Of a run's arrays by name, those that this process alone draws with.
    own_draws = staticmethod(lambda arrays: {})

    @property
    def is_chief(self):
        """Whether this is the one process that writes files."""
        return self.index == 0

    def scope(self):
        """A context in which tasks are built and compiled."""
        return contextlib.nullcontext()

    def dataset(self, dataset, training=True):
        """The rows that this process feeds its replicas with.

        Each process reads the whole dataset; of a `Stream`, `batches` reads
        its own rows alone.

        Args:
            dataset: `tf.data.Dataset` of global batches, as on one device.
            training: bool. For training, each batch has the same size, which
                the replicas divide. For `evaluate`, any size is allowed; no
                row is padded, dropped or counted twice.

        Returns:
            `tf.data.Dataset`.

        Raises:
            ValueError: batches that cannot be divided, or that are divided
                already.
        """
        return dataset

    def share(self, stream):
        """What this process reads of a stream of global batches.

        Args:
            stream: a `data.pipeline.Stream`, of one host, or of this process
                among as many hosts as there are processes.

        Returns:
            `Stream` of this process's rows of each batch.

        Raises:
            ValueError: a stream that is divided in another way.
        """
        return process_share.share(stream, self.processes, self.index)

    def batches(self, stream, start=(0, 0), epochs=None, training=True):
        """The batches of a stream, of which each process reads its own rows.

        Args:
            stream: as `share`.
            start, epochs: as `Stream.dataset`.
            training: bool, as `dataset`.

        Returns:
            `tf.data.Dataset`, for `fit` and `evaluate` as it is.

        Raises:
            ValueError: as `share` and `dataset`.
        """
        dataset = self.share(stream).dataset(start, epochs)
        if not process_share.is_divided(dataset):
            return self.dataset(dataset, training)
        # Else processes would take another number of steps, or replicas of
        # one be left without rows.
        divide_batches.check_size(dataset, self.count // self.processes or 1)
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
            self.by_chief(lambda: task.save_to_preset(preset_dir))

    def any(self, flag):
        """Whether a flag is set in any process. Every process must call it.

        Args:
            flag: bool.

        Returns:
            bool, the same in every process.
        """
        return flag

    def is_whole(self, variable):
        """Whether each process has all values of a variable."""
        return True

    def gather_text(self, text):
        """What each process says. Every process must call it.

        Args:
            text: str, of this process.

        Returns:
            list of str, in the order of the processes, the same in each.
        """
        return [text]

    def wait(self):
        """Return when every process has come here."""

    def together(self, function):
        """Call a function in every process; one that fails ends them all.

        Args:
            function: callable without arguments.

        Returns:
            What it returned here.

        Raises:
            Exception: the function's own, where every process has the same.
            ProcessError: else, in every process; it says what each raised.
        """
        made, error = None, None
        try:
            made = function()
        except Exception as raised:
            error = raised
        told = self.gather_text(
            "" if error is None else f"{error}" or repr(error)
        )
        if not any(told):
            return made
        if error is not None and len(set(told)) == 1:
            raise error
        raise ProcessError(
            "All processes of a run must be able to go on; this one ends as "
            f"another has failed. Received:\n{by_process(told)}"
        ) from error

    def by_chief(self, function):
        """Call a function in the first process, while the others wait.

        Args:
            function: callable without arguments.

        Raises:
            Exception: as `together`.
        """
        self.together(function if self.is_chief else lambda: None)


class ProcessError(RuntimeError):
    """What failed in some processes, raised in all of them."""


def by_process(told):
    """Lines that say what each process told, equal ones together."""
    lines = {}
    for index, text in enumerate(told):
        lines.setdefault(text or "nothing failed", []).append(f"{index}")
    return "\n".join(
        f"process {', '.join(indices)}: {text}"
        for text, indices in lines.items()
    )


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
        process_share.check_whole(dataset)
        if training:
            divide_batches.check_training_batch(dataset, self.count)
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
