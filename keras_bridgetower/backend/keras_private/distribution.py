"""Replaces methods of Keras to train on several devices.

They are replaced in Keras' classes, because Keras offers no other way, and
only once in a process. The new methods act only on objects that a strategy of
this package has marked, and call Keras' own method for all others.
"""

import contextlib

import keras

from keras_bridgetower.backend.keras_private import patches as keras_patches


def check_version():
    """Raise if this version of Keras is not known."""
    keras_patches.check_version(
        "Training on several devices", "train on one device"
    )


@contextlib.contextmanager
def temporary_values(variables, values):
    """A context in which variables hold other values.

    They are set without an assignment, which would divide the values among
    devices.

    Args:
        variables: list of variables.
        values: list of arrays.
    """
    check_version()
    before = [v._value for v in variables]
    for variable, value in zip(variables, values, strict=True):
        variable._value = value
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable._value = value


def build_metrics(model, spec):
    """Create the variables of a compiled model's losses and metrics.

    Keras would read the first batch for it, and read it again to train.

    Args:
        model: a compiled `keras.Model`.
        spec: nested structure of `tf.TensorSpec` that describes a batch.
    """
    check_version()
    model._symbolic_build(
        data_batch=keras.tree.map_structure(
            lambda s: keras.KerasTensor(tuple(s.shape), s.dtype.name), spec
        )
    )


def share_seed():
    """JAX: set one seed in all processes, as Keras does by `initialize`."""
    check_version()
    from keras.src.backend.jax import distribution_lib

    distribution_lib.initialize_rng()


def lay_out_each_batch(kind):
    """JAX: ask the distribution for the layout of every batch.

    Keras asks for the first batch only, so that a last batch of another size
    fails.

    Args:
        kind: the class of distributions for which this is done.
    """
    check_version()
    from keras.src.backend.jax import trainer

    kind.keras_bridgetower_each_batch = True

    def replacement(own):
        def batches(self, distribution):
            if not hasattr(distribution, "keras_bridgetower_each_batch"):
                yield from own(self, distribution)
                return
            for data in self.data_adapter.get_jax_iterator():
                yield trainer._distribute_data(data)

        return batches

    iterator = trainer.JAXEpochIterator
    _replace_once(iterator, "_get_distributed_iterator", replacement)


def gradients_are_summed(optimizer):
    """TensorFlow: keep this optimizer from summing gradients over replicas.

    They are summed before they reach it.
    """
    check_version()
    for one in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        one._all_reduce_sum_gradients = lambda pairs: pairs


def distribute_on_tensorflow(engine, split):
    """TensorFlow: divide batches ourselves, and support several processes.

    Keras lets `tf.distribute` divide batches, which may leave a replica
    without samples in the last one. With several processes two more steps of
    Keras fail: it builds metrics on the mean over a nested batch, and reduces
    scalar logs along an axis.

    Args:
        engine: the `tf.distribute.Strategy` for which this is done.
        split: function of a strategy and a dataset of global batches that
            returns the distributed dataset.
    """
    check_version()
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer
    from keras.src.trainers.epoch_iterator import EpochIterator

    engine.keras_bridgetower_split = split

    def start_with(own):
        def start(self, distribute_strategy=None, *args, **kwargs):
            if not _is_ours(distribute_strategy):
                own(self, distribute_strategy, *args, **kwargs)
                return
            EpochIterator.__init__(self, *args, **kwargs)
            self._distribute_strategy = distribute_strategy
            dataset = self.data_adapter.get_tf_dataset()
            split = distribute_strategy.keras_bridgetower_split
            self._distributed_dataset = split(distribute_strategy, dataset)

        return start

    def build_with(own):
        def build(self, iterator=None, data_batch=None):
            strategy = self._distribute_strategy
            if not _is_ours(strategy):
                own(self, iterator, data_batch)
                return
            parts = (self._compile_metrics, self._compile_loss)
            built = all(part is None or part.built for part in parts)
            if iterator is not None and not built:
                _, _, batches = next(iter(iterator))
                data_batch = next(batches)
            with strategy.scope():
                self._symbolic_build(data_batch=first(strategy, data_batch))

        return build

    def reduce_with(own):
        def reduce(values, strategy, reduction):
            # The logs of a step may be those of one replica, because the
            # metrics are read again at the end of an epoch.
            workers = tf.distribute.MultiWorkerMirroredStrategy
            ours = _is_ours(strategy) and isinstance(strategy, workers)
            if ours and reduction == "auto":
                return first(strategy, values)
            if ours and reduction == "concat":
                # The samples were divided in the order of the replicas.
                return keras.tree.map_structure(
                    lambda x: strategy.gather(x, axis=0), values
                )
            return own(values, strategy, reduction)

        return reduce

    def first(strategy, values):
        return keras.tree.map_structure(
            lambda x: strategy.experimental_local_results(x)[0], values
        )

    model = trainer.TensorFlowTrainer
    _replace_once(trainer.TFEpochIterator, "__init__", start_with)
    _replace_once(model, "_maybe_symbolic_build", build_with)
    _replace_once(trainer, "reduce_per_replica", reduce_with)


def _is_ours(engine):
    """Whether `distribute_on_tensorflow` was called for this strategy."""
    return hasattr(engine, "keras_bridgetower_split")


def _replace_once(owner, name, replacement):
    """Replace a function of Keras, unless an earlier call has done so.

    Args:
        owner: the class or module that has the function.
        name: str, its name there.
        replacement: callable that takes Keras' function and returns ours.
    """
    own = getattr(owner, name)
    if not hasattr(own, "is_of_keras_bridgetower"):
        ours = replacement(own)
        ours.is_of_keras_bridgetower = True
        setattr(owner, name, ours)
