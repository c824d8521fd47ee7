"""`Strategy`, the interface for training on several devices."""

import contextlib
import json

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.updates import count_updates
from keras_bridgetower.checks import BuiltElsewhere
from keras_bridgetower.checks import check_at_most
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution.same_order import SameOrder


class Strategy:
    """One device; the base class of all strategies of `kbt.distribute`.

    Tasks call its methods, and so do not depend on how each framework
    distributes.

    Attributes:
        device_name: str, name of the devices. A task must be trained on the
            devices that it was compiled for.
        count: int, number of replicas, among which a batch is divided.
        processes: int, number of processes that train together.
        index: int, number of this process, from 0.

    Example:

    ```python
    strategy = distribute("none")
    with strategy.scope():
        task = BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    strategy.is_chief  # True
    ```
    """

    device_name, count, index, processes = "one device", 1, 0, 1
    # Whether a run can stop in the middle of an update, and go on exactly.
    stops_within_updates = True
    # Whether the framework notes a SIGTERM: a handler of Python replaces its.
    notes_sigterm = False
    # Function of the named arrays of a run that selects the random states
    # that differ between processes.
    own_draws = staticmethod(lambda arrays: {})

    @property
    def is_chief(self):
        """True in process 0, the only one that writes files."""
        return self.index == 0

    def scope(self):
        """Return a context in which tasks are built and compiled."""
        return contextlib.nullcontext()

    def dataset(self, dataset, training=True):
        """Return the samples for the replicas of this process.

        Each process reads the whole dataset and keeps its share. For a
        `Stream`, `batches` reads only the share. All processes must call this
        and read the rows in the same order, so pass a seed to `shuffle`. The
        first batches are compared at once, the others after each epoch.

        Args:
            dataset: `tf.data.Dataset` of global batches, as on one device.
            training: bool. For training, all batches must have one size that
                the replicas divide evenly. For `evaluate`, any size is
                allowed, and no sample is padded, dropped or counted twice.

        Returns:
            `tf.data.Dataset`.

        Raises:
            ValueError: the batches cannot be divided or are already divided,
                or processes read in different orders.
        """
        return dataset

    def share(self, stream):
        """Return the share of this process in a stream of global batches.

        Args:
            stream: a `Stream` that is not divided among hosts, or that is
                already the share of this process.

        Returns:
            `Stream` of this process's samples of each batch.

        Raises:
            ValueError: the stream is already divided in another way.
        """
        own = self.processes, self.index
        hosts = getattr(stream, "num_hosts", 1), getattr(stream, "host", 0)
        # A stream of the user may lack these attributes and `of_host`.
        if hosts == own or (hosts[0] == 1 and not hasattr(stream, "of_host")):
            return stream
        if hosts[0] != 1:
            raise ValueError(
                "`stream` must not be divided: omit `num_hosts` and `host`. "
                f"Received: num_hosts={hosts[0]}, host={hosts[1]}"
            )
        return stream.of_host(*own)

    def batches(self, stream, start=(0, 0), epochs=None, training=True):
        """Return a dataset of a stream that reads only this process's share.

        Args:
            stream: as in `share`.
            start, epochs: as in `Stream.dataset`.
            training: bool, as in `dataset`.

        Returns:
            `tf.data.Dataset`, ready for `fit` and `evaluate`.

        Raises:
            ValueError: as `share` and `dataset`.
        """
        dataset = self.share(stream).dataset(start, epochs)
        if not divide_batches.is_divided(dataset):
            return self.dataset(dataset, training)
        # Other sizes could give processes different numbers of steps, or a
        # replica no samples.
        divide_batches.check_size(dataset, self.count // self.processes or 1)
        return dataset

    @contextlib.contextmanager
    def gathered(self, task):
        """Return a context in which every process can read all weights."""
        yield

    def whole(self, variable):
        """Return a variable as NumPy array. Every process must call it.

        Processes other than 0 may get no values.
        """
        return keras.ops.convert_to_numpy(variable)

    def own_rows(self, task, variable, array):
        """Return what this process keeps of a variable of the optimizer."""
        return array

    def share_accumulated(self, optimizer):
        """Let process 0 have what all processes accumulated in an update."""

    def keep_sums(self, metrics):
        """Keep restored values of metrics in process 0 only.

        A checkpoint contains the sums over all replicas, see `summed`.

        Args:
            metrics: list of the variables of metrics.
        """

    def save_to_preset(self, task, preset_dir):
        """Save a task to a new preset folder, written by process 0.

        Every process must call it.

        Args:
            task: a task.
            preset_dir: path of a folder that does not exist yet.
        """
        with self.gathered(task):
            self.by_chief(lambda: task.save_to_preset(preset_dir))

    def any(self, flag):
        """Return True if any process passes True. Every process must call it.

        Args:
            flag: bool.

        Returns:
            bool, the same in every process.
        """
        return any(self.gather_text("yes" if flag else ""))

    def must_stop(self, signaled):
        """Return True at one step of all processes after one gets a SIGTERM.

        Every process must call it once a step.

        Args:
            signaled: bool, whether this process got the signal.
        """
        return self.any(signaled)

    def together(self, function):
        """Call a function in every process, and raise in all if one fails.

        Args:
            function: callable without arguments.

        Returns:
            The function's value in this process.

        Raises:
            Exception: the error of the function, if all processes have it.
            ProcessError: processes have different errors; it lists them.
        """
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        errors = self.gather_text(
            "" if error is None else f"{error}" or repr(error)
        )
        if not any(errors):
            return result
        if error is not None and len(set(errors)) == 1:
            raise error
        raise ProcessError(
            "All processes end because one has failed. Received:\n"
            f"{by_process(errors)}"
        ) from error

    def by_chief(self, function):
        """Call a function in process 0, while the others wait.

        Args:
            function: callable without arguments.

        Raises:
            Exception: as in `together`.
        """
        self.together(function if self.is_chief else lambda: None)

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
        if task.optimizer is not None:
            count_updates(task.optimizer)

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

    def gathered_weights(self, values, variables):
        """Return values of weights as a training step reads them.

        Args:
            values: list of tensors.
            variables: list of their variables.
        """
        return values

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


class ProcessError(RuntimeError):
    """Error of one or more processes, raised in all of them."""


_CURRENT = [Strategy()]


def current():
    """Return the `Strategy` that tasks are trained by."""
    return _CURRENT[0]


def set_current(strategy):
    """Train tasks by another `Strategy` from now on."""
    _CURRENT[0] = strategy


def by_process(texts):
    """Return lines with the text of each process, equal ones merged."""
    lines = {}
    for index, text in enumerate(texts):
        lines.setdefault(text or "nothing failed", []).append(f"{index}")
    return "\n".join(
        f"process {', '.join(indices)}: {text}"
        for text, indices in lines.items()
    )


def differences(strategy, values):
    """Compare values of all processes. Every process must call it.

    Args:
        strategy: a `Strategy`.
        values: dict of plain values of this process. It may be nested.

    Returns:
        str, a line for each process with the values that differ, or `""`.
    """
    if strategy.processes == 1:
        return ""
    texts = strategy.gather_text(json.dumps(values, sort_keys=True))
    if len(set(texts)) == 1:
        return ""
    each = [_flat(json.loads(text)) for text in texts]
    names = sorted({name for one in each for name in one})
    differ = [n for n in names if len({repr(one.get(n)) for one in each}) > 1]
    return by_process(
        ", ".join(f"{n}={one.get(n)!r:.80}" for n in differ) for one in each
    )


def _flat(values, prefix=""):
    """Flatten a nested dict to keys that are joined by dots."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


class Several(Strategy):
    """Abstract: several replicas. Tasks must be built in the scope."""

    # Batches to evaluate must have a row for each replica.
    fills_replicas = True

    def __init__(self):
        self._inside = False
        self._order = SameOrder(self)

    def check_devices(self, devices):
        """Raise if `devices` is not the number of devices of all processes."""
        if devices not in (None, self.count):
            raise ValueError(
                f"`devices` must be {self.count}, those of all processes. "
                f"Received: devices={devices}"
            )

    @property
    def device_name(self):
        return f"{type(self).__name__} of {self.count} replicas"

    @contextlib.contextmanager
    def scope(self):
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def dataset(self, dataset, training=True):
        if divide_batches.is_divided(dataset):
            # Rows would be lost.
            raise ValueError(
                "`dataset` must hold global batches, but is divided among "
                "processes already. Pass a `Stream` to `strategy.batches`."
            )
        if training and self.count > 1:
            divide_batches.check_size(dataset, self.count)
        if not training and self.fills_replicas:
            dataset = divide_batches.without_short_end(dataset, self.count)
        if self.processes > 1:
            dataset = self._order.recorded(dataset)
        return divide_batches.ready(dataset)

    def divided(self, source, training):
        if self.processes == 1 or divide_batches.is_ready(source):
            return source
        if not divide_batches.is_dataset(source):
            raise ValueError(
                f"With {self.processes} processes `x` must be arrays or a "
                f"`tf.data.Dataset`. Received: a {type(source).__name__}"
            )
        return self.dataset(source, training)

    def batches(self, stream, start=(0, 0), epochs=None, training=True):
        share = self.share(stream)
        differing = differences(self, getattr(share, "identity", {}))
        if differing:
            raise ValueError(
                "All processes must read the same stream. Received:\n"
                f"{differing}"
            )
        return super().batches(share, start, epochs, training)

    def check_order(self):
        self._order.check()

    def all_gather(self, array):
        """Stack the arrays of all processes, which have one shape."""
        raise NotImplementedError

    def gather_text(self, text):
        if self.processes == 1:
            return [text]
        content = np.frombuffer(text.encode(), "uint8")
        counts = self.all_gather(np.array(len(content), "int32"))
        sent = np.zeros(max(1, counts.max()), "int32")
        sent[: len(content)] = content
        return [
            bytes(row[:count].tolist()).decode()
            for row, count in zip(self.all_gather(sent), counts, strict=True)
        ]

    def prepare(self, task):
        super().prepare(task)
        outside = [w.path for w in task.weights if not self.holds(w)]
        if not self._inside or outside:
            raise BuiltElsewhere(
                f"{outside[0]!r}, built before or outside"
                if self._inside
                else f"{task.name!r} outside"
            )

    def holds(self, variable):
        """Return True if a variable was created on these devices."""
        return True


def check_batch_norms(task, strategy):
    """Raise if batch norms would learn from parts of batches.

    Each replica would normalize by the mean and variance of its own part, and
    keep running statistics of its own. On JAX the replicas share a batch.

    Args:
        task: a compiled task.
        strategy: the `Strategy`.
    """
    trained = [
        layer.name
        for layer in layers_in(task)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]
    if strategy.count > 1 and task.optimizer is not None and trained:
        raise ValueError(
            f"Batch norms must be frozen on {strategy.device_name}, where "
            "replicas see parts of a batch: set `backbone.image_tower."
            "trainable = False` before `compile`, or use JAX. Received: "
            f"{len(trained)} batch norms, such as {trained[0]!r}"
        )


def first_devices(devices, known):
    """Return the first devices of those that the backend sees.

    Args:
        devices: int, or None for all.
        known: list of the backend's devices.
    """
    if devices is None:
        return known
    check_at_most("devices", devices, len(known), "devices of this machine")
    return known[:devices]


def shard_count(shard_devices, count):
    """Return how many devices have one copy of the weights together.

    Args:
        shard_devices: int, or None for all.
        count: int, number of all devices.

    Raises:
        ValueError: the devices cannot be divided into such groups.
    """
    if shard_devices is None:
        return count
    check_count("shard_devices", shard_devices)
    if count % shard_devices:
        raise ValueError(
            f"`shard_devices` must divide the {count} devices. Received: "
            f"shard_devices={shard_devices}"
        )
    return shard_devices
