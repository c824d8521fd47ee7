"""Runs forward passes in several threads, and refuses uses that conflict."""

import contextlib
import threading

import keras
import numpy as np

from keras_bridgetower.backend import compiled
from keras_bridgetower.backend import precision
from keras_bridgetower.checks import check_count
from keras_bridgetower.models.attention import watch_attention
from keras_bridgetower.preprocessing.preprocessor import shortened

_WEIGHTS, _METRICS = "weights", "metrics"


class Inference:
    """State that the verbs of one task share; it is safe for threads.

    Args:
        task: a task.
    """

    def __init__(self, task):
        self._task = task
        self._running = []
        self._made_for, self._cached = [], {}
        # The first guards the fields above, the second is held to compile.
        self._lock, self._compiling = threading.Lock(), threading.Lock()

    @contextlib.contextmanager
    def read_lock(self, name):
        """A context in which a verb reads weights.

        Args:
            name: str, the verb, as errors call it.

        Raises:
            RuntimeError: another thread trains the task; on JAX also one
                that is in Keras' `evaluate` or `predict`.
        """
        with self._using(name, {_WEIGHTS}, set()):
            compiled.restore_weights(self._task)
            yield

    @contextlib.contextmanager
    def training(self, name):
        """A context in which Keras trains the task: no other thread uses it."""
        writes = {_WEIGHTS, _METRICS}
        with self._using(name, set(), writes, "train_function"):
            # Once for each optimizer.
            self.cached("precision", self._check_precision)
            yield

    def testing(self, name):
        """A context in which Keras evaluates: the metrics are its own."""
        writes = {_METRICS, *self._taken()}
        return self._using(name, {_WEIGHTS}, writes, "test_function")

    def predicting(self, name):
        """A context in which Keras predicts."""
        return self._using(name, {_WEIGHTS}, self._taken(), "predict_function")

    def cached(self, name, make):
        """Return an object made of the task's layers, until weights change.

        It is made again after adapters were added or layers quantized, and
        after `compile`. As in Keras, other changes of layers, such as another
        activation, need another `compile`.

        Args:
            name: hashable key of this object alone.
            make: callable without arguments.
        """
        now = self._task.variables
        with self._lock:
            if list(map(id, self._made_for)) != list(map(id, now)):
                # Clear all of it: it would keep replaced weights in memory.
                self._made_for, self._cached = now, {}
            if name not in self._cached:
                self._cached[name] = make()
            return self._cached[name]

    def forget(self):
        """Free cached objects, such as a replaced optimizer."""
        with self._lock:
            self._made_for, self._cached = [], {}

    def forward(self, model):
        """Return a `Forward` of this task.

        Args:
            model: a `keras.Model` of layers of the task, or a callable from a
                dict of tensors to tensors that uses the task's layers.
        """
        if not isinstance(model, keras.Model):
            model = _Part(self._task, model)
        return Forward(model, self._task, self._compiling)

    def whole(self):
        """Return a `Forward` of the whole task."""
        if compiled.is_eager(self._task):
            return self.forward(self._task)  # Nothing gets out of date.
        return self.cached("forward", lambda: self.forward(self._task))

    def filled_rows(self, rows, batch_size):
        """Return the number of rows to which a batch is padded.

        Compiled functions get a power of two or `batch_size`, so that few
        shapes are compiled. Eager ones get no additional rows.
        """
        if compiled.is_eager(self._task):
            return rows
        return min(batch_size, 1 << (rows - 1).bit_length())

    def in_batches(
        self, function, sources, batch_size, buckets=None, fill=True
    ):
        """Run a function over sources, in batches of few distinct sizes.

        Pictures of a batch are read when its turn comes, while an accelerator
        still computes the batch before.

        Args:
            function: callable, from a dict of features to arrays
                `(rows, ...)`.
            sources: list of `Features` and `Pictures`, of the same count or
                single.
            batch_size: int, rows of a batch.
            buckets: tuple of int or None, see `BridgeTowerPreprocessor`.
            fill: bool, whether to pad a batch, see `filled_rows`. False if
                an objective sampled pairs from its rows.

        Yields:
            `(features, outputs)` of each batch: a dict of arrays, and NumPy
            arrays as the function returns them.

        Raises:
            ValueError: `batch_size` is not a positive integer.
        """
        check_count("batch_size", batch_size)
        batch_size = int(batch_size)
        count = max(source.count for source in sources)
        waiting = None
        for start in range(0, count, batch_size):
            rows = min(batch_size, count - start)
            size = self.filled_rows(rows, batch_size) if fill else rows
            features = {}
            for source in sources:
                features |= source.features(start, start + rows)
            if buckets is not None and "padding_mask" in features:
                features = shortened(features, buckets)
            made = function({k: filled(x, size) for k, x in features.items()})
            if waiting:
                yield _finished(*waiting)
            waiting = features, made, rows
        yield _finished(*waiting)

    def _taken(self):
        # Keras' own passes take the weights out of the model on JAX.
        return {_WEIGHTS} if keras.config.backend() == "jax" else set()

    def _check_precision(self):
        if getattr(self._task, "optimizer", None) is not None:
            precision.check_training(
                self._task.trainable_variables, self._task.optimizer
            )

    @contextlib.contextmanager
    def _using(self, name, reads, writes, function=None):
        thread = threading.get_ident()
        use = name, thread, reads, writes
        with self._lock:
            for other, its_thread, its_reads, its_writes in self._running:
                shared = writes & (its_reads | its_writes) | reads & its_writes
                # What a callback does in its own thread is part of the
                # training.
                if shared and thread != its_thread:
                    does = "changes" if its_writes & shared else "reads"
                    raise RuntimeError(
                        f"`{name}` must wait until `{other}`, which {does} "
                        f"this model's {' and '.join(sorted(shared))} in "
                        f"another thread, has returned. Received: `{name}` "
                        f"while `{other}` runs"
                    )
            self._running.append(use)
        try:
            if function:
                # Keras compiles it again if it is missing.
                self.cached(
                    function, lambda: setattr(self._task, function, None)
                )
            yield
        finally:
            with self._lock:
                self._running.remove(use)


class Forward:
    """A forward pass that is compiled once for each shape.

    Args:
        model: a `keras.Model`.
        settings: the task, whose settings of `compile` apply.
        lock: held while something is compiled, so that threads that ask for
            the same do not compile it twice.

    Call arguments:
        inputs: dict of NumPy arrays with a batch axis.

    Returns:
        The outputs of the model; on accelerators perhaps not computed yet.
    """

    def __init__(self, model, settings, lock):
        self.model, self._settings = model, settings
        self._lock, self._runs = lock, {}

    def __call__(self, inputs):
        # One function for each: of several shapes for one, TensorFlow warns.
        shapes = [(k, tuple(x.shape), str(x.dtype)) for k, x in inputs.items()]
        shapes = () if compiled.is_eager(self._settings) else (*sorted(shapes),)
        if shapes not in self._runs:
            # Another thread may be faster.
            with self._lock, watch_attention(None):
                if shapes not in self._runs:
                    run = compiled.forward(self.model, self._settings)
                    made = run(inputs)
                    self._runs[shapes] = run
                    return made
        return self._runs[shapes](inputs)


class _Part(keras.Model):
    """A model that runs a function of a task's layers."""

    def __init__(self, task, function):
        # TensorFlow takes no name that begins with an underscore.
        super().__init__(name="part", dtype=task.dtype_policy)
        self.backbone, self.heads = task.backbone, task.heads
        self.function = function

    def call(self, inputs, training=None):
        return self.function(inputs)


def filled(x, size):
    """Repeat the last row up to a fixed number of rows."""
    if len(x) == size:
        return x
    more = np.broadcast_to(x[-1:], (size - len(x), *x.shape[1:]))
    return np.concatenate([x, more])


def joined(batches):
    """Return all outputs of `Inference.in_batches`, concatenated."""
    outputs = [outputs for _, outputs in batches]
    return keras.tree.map_structure(lambda *x: np.concatenate(x), *outputs)


def _finished(features, made, rows):
    return features, keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(x)[:rows], made
    )
