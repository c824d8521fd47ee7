"""Reads and resets what Keras keeps during `fit`."""

import contextlib
import functools
import weakref

import keras

from keras_bridgetower.backend.keras_private import is_known


def read_again(batches):
    """Return a data source for `fit` that calls `batches` in each epoch.

    Keras' public interface reads a generator only once.

    Args:
        batches: callable that returns a generator of batches.
    """
    from keras.src.trainers.data_adapters import generator_data_adapter

    adapter = generator_data_adapter.GeneratorDataAdapter(batches())
    adapter.generator = batches
    return adapter


def forget_continued(model):
    """Let `fit` start at its `initial_epoch`.

    Keras' `BackupAndRestore` stores in the model the epoch at which it
    continued, and every later `fit` would skip the epochs before it.
    """
    model._initial_epoch = None


@contextlib.contextmanager
def closed_after(model, dataset, class_weight=None):
    """A context in which Keras reads a dataset; its iterators end with it.

    An error keeps Keras' frames, and these keep an iterator, whose threads
    would read on and hold batches. Errors that a dataset of
    `tf_datasets.mapped` returns are raised here, since TensorFlow would log
    them.

    Args:
        model: the `keras.Model` that reads.
        dataset: a `tf.data.Dataset`. Other sources are passed on unchanged,
            as are all of them for an unknown Keras and with a strategy of
            `tf.distribute` or `keras.distribution`.
        class_weight: dict from class id to weight, or None. Keras applies it
            to datasets alone.

    Yields:
        What `keras.Model.fit` takes as `x`.
    """
    import tensorflow as tf

    one = tf.distribute.get_strategy()
    if (
        not isinstance(dataset, tf.data.Dataset)
        or not is_known()
        or keras.distribution.distribution() is not None
        or tf.distribute.has_strategy()
        or getattr(model, "distribute_strategy", one) is not one
    ):
        yield dataset
        return
    from keras.src.trainers.data_adapters import tf_dataset_adapter

    held = _HeldIterators(dataset)
    adapter = tf_dataset_adapter.TFDatasetAdapter(held.batches, class_weight)
    held.batches, adapter._dataset = adapter._dataset, held
    try:
        yield adapter
    finally:
        held.close()


class _HeldIterators:
    """A dataset that knows its iterators, to close them.

    Args:
        dataset: a `tf.data.Dataset`.
    """

    def __init__(self, dataset):
        self.cardinality = dataset.cardinality
        self.batches = dataset
        self._errors, self._iterators = [], []
        pairs = getattr(dataset, "keras_bridgetower_errors", None)
        if pairs is not None:
            good = pairs.take_while(self._is_good)
            self.batches = good.map(lambda batch, _: batch)

    def _is_good(self, _, errors):
        import tensorflow as tf

        # TensorFlow never forgets `keep`, so it must not hold `self`, whose
        # datasets hold all data.
        found = self._errors

        def keep(errors):
            found.extend(filter(None, errors))
            return False

        return tf.cond(
            tf.reduce_all(errors == b""),
            lambda: True,
            lambda: tf.numpy_function(keep, [errors], tf.bool),
        )

    def __iter__(self):
        iterator = iter(self.batches)
        self._iterators.append(weakref.ref(iterator))
        return _Batches(iterator, self.check)

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def check(self):
        """Raise the error that has ended the data, if there is one."""
        if self._errors:
            text = self._errors[0].decode()
            raise ValueError(text.removeprefix("ValueError: "))

    def close(self):
        """End all iterators: one ends when nothing holds its resource."""
        for reference in self._iterators:
            iterator = reference()
            if iterator is not None:
                vars(iterator).clear()


class _Batches:
    """An iterator of a dataset that raises the error which ended it."""

    def __init__(self, iterator, check):
        self.iterator, self.check = iterator, check

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self.iterator)
        except StopIteration:
            self.check()
            raise


def make(model, parent, name, force):
    """Let Keras make a function of its loops, such as `train_function`.

    On TensorFlow it reads held iterators. On PyTorch the first batch is not
    compiled.

    Args:
        model: the `keras.Model`.
        parent: its `super()`, whose method makes the function.
        name: str, the attribute in which Keras keeps the function.
        force: bool, whether one that is there is made again.

    Returns:
        The function.
    """
    if getattr(model, name) is None or force:
        make_function = getattr(parent, f"make_{name}")
        make_function(force=True)
        function = getattr(model, name)
        if keras.config.backend() == "tensorflow":
            function = _reads_held(model, function)
        elif keras.config.backend() == "torch" and model.jit_compile:
            model.jit_compile = False
            make_function(force=True)
            model.jit_compile = True
            function = eager_first(getattr(model, name), function)
        setattr(model, name, function)
    return getattr(model, name)


def eager_first(first, others):
    """Return a function that calls `others`, but `first` the first time.

    Keras names layers and creates variables at their first call, and
    `torch.compile` would compile all again. NumPy arrays would break its
    graph, so both get tensors.
    """
    functions = iter([first])

    def tensor(x):
        return keras.ops.convert_to_tensor(x) if hasattr(x, "__array__") else x

    def call(data):
        return next(functions, others)(keras.tree.map_structure(tensor, data))

    return call


def _reads_held(model, function):
    """Let a function that Keras compiled for TensorFlow read held iterators."""
    import tensorflow as tf

    @functools.wraps(function)
    def call(batches):
        if not isinstance(batches, _Batches):
            return function(batches)
        try:
            outputs = function(batches.iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            batches.check()
            raise
        if model.steps_per_execution > 1:
            # Keras ends such an execution early without an error.
            batches.check()
        return outputs

    return call


def build_from_spec(model, spec):
    """Create the variables of a compiled model's losses and metrics.

    Keras would read the first batch twice, to build them and to train.

    Args:
        model: a compiled `keras.Model`.
        spec: nested structure of `tf.TensorSpec` or `keras.KerasTensor` that
            describes a batch.
    """

    def tensor(x):
        dtype = keras.backend.standardize_dtype(x.dtype)
        return keras.KerasTensor(tuple(x.shape), dtype)

    model._symbolic_build(data_batch=keras.tree.map_structure(tensor, spec))


def loss_means(model):
    """Return the metrics that average a compiled model's losses for the logs.

    Args:
        model: a compiled `keras.Model`.

    Returns:
        `(total, heads)`: a `keras.metrics.Mean`, and a list of them, which is
        empty with a single output and before the first batch.
    """
    losses = model._compile_loss
    return model._loss_tracker, losses.metrics if losses else []


def optimizer_value(model, variable):
    """Return the value of an optimizer's variable between steps of `fit`.

    On JAX the variable itself is empty then. The public way sets all
    variables of the model, which is too slow for every step.

    Args:
        model: the model, which may be in training.
        variable: one of `model.optimizer.variables`.

    Returns:
        NumPy array.
    """
    if keras.config.backend() == "jax":
        state = getattr(model, "_jax_state", None)
        if state and not model._jax_state_synced:
            pairs = zip(
                model.optimizer.variables,
                state["optimizer_variables"],
                strict=True,
            )
            variable = next(x for v, x in pairs if v is variable)
    return keras.ops.convert_to_numpy(variable)


def with_public_optimizers(config):
    """Return a compile config whose optimizers load on every backend.

    On PyTorch, Keras saves the name of a class for PyTorch only, which fails
    in the first step elsewhere. Here it is the public class of that name.

    Args:
        config: dict, as `keras.Model.get_compile_config` returns it.

    Returns:
        A changed copy.
    """
    if isinstance(config, (list, tuple)):
        return [with_public_optimizers(value) for value in config]
    if not isinstance(config, dict):
        return config
    public = {}
    if str(config.get("module")).startswith(_OF_PYTORCH):
        public = {"module": "keras.optimizers", "registered_name": None}
    copy = {k: with_public_optimizers(value) for k, value in config.items()}
    return copy | public


_OF_PYTORCH = "keras.src.backend.torch.optimizers."
