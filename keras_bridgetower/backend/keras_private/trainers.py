"""Runs Keras' trainers on several devices.

Keras fixes the layout of data and the reduction of logs inside its trainers.
The functions here give them other data, or call copies of their methods that
read other names. Nothing in Keras changes, so plain Keras models train as ever.
The missing hooks are in `docs/design/keras.md`:

* JAX: a last batch that the devices cannot divide
  (https://github.com/keras-team/keras/issues/21167).
* TensorFlow: batches that are divided by the caller, and several processes.
"""

import functools
import inspect
import types

import keras

from keras_bridgetower.backend import keras_private
from keras_bridgetower.backend.keras_private.updates import learning


def check_version():
    """Raise if this version of Keras is not known."""
    feature = "Training on several devices"
    keras_private.check_version(feature, "train on one device")


def with_names(method, **names):
    """Return a copy of a method that reads other module-level names.

    Args:
        method: a method of a trainer of Keras.
        **names: the names in the trainer's module, and their values.
    """
    own = inspect.unwrap(method)
    copy = types.FunctionType(
        own.__code__,
        {**own.__globals__, **names},
        own.__name__,
        own.__defaults__,
        own.__closure__,
    )
    copy.__kwdefaults__ = own.__kwdefaults__
    return copy


def jax_method(name):
    """Return a method of JAX's trainer that lays out each batch by itself.

    Keras takes the layout of the first batch for all batches of a pass, which
    fails for a last batch of another size.

    Args:
        name: str, `"fit"`, `"evaluate"` or `"predict"`.
    """
    from keras.src.backend.jax import trainer

    class EachBatch(trainer.JAXEpochIterator):
        def _get_distributed_iterator(self, distribution):
            for data in self.data_adapter.get_jax_iterator():
                yield trainer._distribute_data(data)

    own = getattr(trainer.JAXTrainer, name)
    return with_names(own, JAXEpochIterator=EachBatch)


def divided(x, class_weight, divide):
    """TensorFlow: return data for Keras that we divide among the replicas.

    Keras takes a data adapter in place of data, and does not divide a
    `tf.distribute.DistributedDataset` again. Its own division may leave a
    replica without rows in the last batch.

    Args:
        x: a `tf.data.Dataset`, or another source of batches for `fit`.
        class_weight: dict or None, as for `fit`.
        divide: function from a `tf.data.Dataset` to a `DistributedDataset`.
    """
    from keras.src.trainers.data_adapters import get_data_adapter

    adapter = get_data_adapter(x, class_weight=class_weight)
    whole = adapter.get_tf_dataset
    adapter.get_tf_dataset = lambda: divide(whole())
    return adapter


def make_worker_functions(model):
    """TensorFlow: compile a model's steps for several processes.

    Keras reduces scalar logs along an axis, and orders predictions as if they
    had been divided by process. Functions that exist already are kept, as by
    Keras.

    Args:
        model: a `keras.Model` built under `MultiWorkerMirroredStrategy`.
    """
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    own = functools.partial(with_names, reduce_per_replica=_reduce)
    make = own(TensorFlowTrainer._make_function)
    model.train_function = model.train_function or make(model, model.train_step)
    model.test_function = model.test_function or make(model, model.test_step)
    if model.predict_function is None:
        own(TensorFlowTrainer.make_predict_function)(model)


def _reduce(values, strategy, reduction):
    # Logs of one replica suffice: metrics are read again after the epoch.
    if reduction == "auto":
        return _first(strategy, values)
    return keras.tree.map_structure(lambda x: strategy.gather(x, 0), values)


def _first(strategy, values):
    """Return the values of the first replica of this process."""
    return keras.tree.map_structure(
        lambda x: strategy.experimental_local_results(x)[0], values
    )


class BuiltByOneReplica:
    """Mixin of models: builds metrics from the batch of one replica.

    Keras on TensorFlow takes the mean over all replicas, which fails for
    batches of several arrays and for rows that are divided unevenly.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = self._distribute_strategy
        if strategy is None or not keras_private.is_known():
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        parts = (self._compile_metrics, self._compile_loss)
        built = all(part is None or part.built for part in parts)
        if iterator is not None and not built:
            _, _, batches = next(iter(iterator))
            data_batch = next(batches)
        with strategy.scope():
            self._symbolic_build(data_batch=_first(strategy, data_batch))


def share_seed():
    """JAX: set one seed in all processes, as Keras does by `initialize`."""
    from keras.src.backend.jax import distribution_lib

    distribution_lib.initialize_rng()


def gradients_are_summed(optimizer):
    """TensorFlow: keep this optimizer from summing gradients over replicas.

    They are summed before they reach it, or an optimizer inside of it.
    """
    for one in (optimizer, learning(optimizer)):
        one._all_reduce_sum_gradients = lambda pairs: pairs
